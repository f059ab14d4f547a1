"""Waits between attempts, and of an open breaker: functions of a number (1, 2, …) that give seconds."""

import random
from collections.abc import Callable

from backstay.resilience.config import Seconds, check, in_seconds, not_negative, within

Wait = Callable[[int], float]

MAX_EXPONENT = 64  # beyond it every wait is at its cap


def fixed(seconds: Seconds) -> Wait:
    """Wait the same time before each attempt."""
    value = in_seconds(seconds)
    return lambda _attempt: value


def exponential(
    initial: Seconds,
    *,
    multiplier: float = 2.0,
    cap: Seconds = 30.0,
    jitter: float = 0.5,
    rng: random.Random | None = None,
    whole_ms: bool = False,
) -> Wait:
    """Wait `multiplier` times longer each time, varied by up to ± `jitter` of itself, never more than `cap` seconds.

    whole_ms: cut each step to whole milliseconds, as Resilience4j does: 500, 750, 1125, 1687, 2530.
    """
    first, most = in_seconds(initial), in_seconds(cap)
    check(
        "exponential wait",
        (not_negative(first), f"initial: {initial!r} is not a number of seconds of at least 0"),
        (within(multiplier, 0) and multiplier >= 1, f"multiplier: {multiplier!r} is less than 1"),
        (not_negative(jitter) and jitter <= 1, f"jitter: {jitter!r} is not in [0, 1]"),
        (not_negative(most) and not_negative(first) and most >= first, f"cap: {cap!r} is less than initial"),
    )
    chance = rng or random

    def wait(attempt: int) -> float:
        steps = min(attempt - 1, MAX_EXPONENT)
        base = min(most, _in_steps(first, multiplier, steps) if whole_ms else first * multiplier**steps)
        return min(most, base * (1 + jitter * chance.uniform(-1.0, 1.0))) if jitter else base

    return wait


def _in_steps(first: float, multiplier: float, steps: int) -> float:
    length = round(first * 1000)
    for _ in range(steps):
        length = int(length * multiplier)
    return length / 1000


def randomised(seconds: Seconds, *, jitter: float = 0.5, rng: random.Random | None = None) -> Wait:
    """Wait the same time before each attempt, varied by up to ± `jitter` of itself."""
    value = in_seconds(seconds)
    return exponential(value, multiplier=1.0, cap=value * 2 if not_negative(value) else value, jitter=jitter, rng=rng)


__all__ = ["Wait", "exponential", "fixed", "randomised"]
