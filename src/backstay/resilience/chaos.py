"""Fault injection: a layer that hurts a share of the calls, to see what the layers around it make of it.

Put it innermost: `pipeline(Retry(3), CircuitBreaker("x"), TimeLimiter(1.0), FaultInjection(rate=10, fault=OSError))`.
It does nothing where `enabled` says no, so it may stay in a pipeline that is switched by a setting.
"""

import random
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.resilience import events
from backstay.resilience.config import Seconds, check, in_seconds, not_negative, within
from backstay.resilience.policy import Call, Guarded, Plain, Policy

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

Fault = type[Exception] | Callable[[], Exception]


class FaultInjection(Policy):
    """Acts on `rate` percent of the calls while `enabled()`: waits, then fails, or answers in place of the call.

    fault: an exception type, or a function that makes one.
    latency: seconds to wait before the call, or a function that tells them.
    outcome: a function that gives the answer; the call isn't made.
    """

    def __init__(
        self,
        rate: float = 100.0,
        *,
        fault: Fault | None = None,
        latency: Seconds | Callable[[], float] | None = None,
        outcome: Callable[[], Any] | None = None,
        enabled: Callable[[], bool] | None = None,
        name: str = "fault injection",
        rng: random.Random | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        length = latency if callable(latency) or latency is None else in_seconds(latency)
        check(
            f"FaultInjection '{name}'",
            (not_negative(rate) and rate <= 100, f"rate: {rate!r} is not a percentage in [0, 100]"),
            (fault is None or callable(fault), f"fault: {fault!r} is neither an exception type nor a function"),
            (
                length is None or callable(length) or within(length, 0),
                f"latency: {latency!r} is neither a number of seconds greater than 0 nor a function",
            ),
            (outcome is None or callable(outcome), f"outcome: {outcome!r} is not a function"),
            (fault is None or outcome is None, "fault and outcome exclude each other: give one of them"),
            (
                not (fault is None and latency is None and outcome is None),
                "nothing to inject: give fault, latency or outcome",
            ),
        )
        self.name = name
        self.rate = rate
        self._fault, self._latency, self._outcome = fault, length, outcome
        self._enabled = enabled
        self._chance = rng or random
        self._clock = clock
        self._events = events.Publisher()
        self.injected = 0  # calls that were acted on

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Hurt a coroutine function."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if not self._strikes():
                return await call(*args, **kwargs)
            if self._latency is not None:
                await self._clock.sleep(self._length())
            self._fail()
            if self._outcome is not None:
                return self._answer()  # type: ignore[no-any-return]
            return await call(*args, **kwargs)

        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Hurt a plain function."""

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if not self._strikes():
                return call(*args, **kwargs)
            if self._latency is not None:
                self._clock.wait(self._length())
            self._fail()
            return call(*args, **kwargs) if self._outcome is None else self._answer()

        return guarded

    def _strikes(self) -> bool:
        if self._enabled is not None and not self._enabled():
            return False
        if self._chance.random() * 100 >= self.rate:
            return False
        self.injected += 1
        return True

    def _length(self) -> float:
        self._events.emit(events.FaultInjected, self.name, kind="latency")
        assert self._latency is not None
        return self._latency() if callable(self._latency) else self._latency

    def _fail(self) -> None:
        if self._fault is not None:
            self._events.emit(events.FaultInjected, self.name, kind="fault")
            raise self._fault()

    def _answer(self) -> Any:
        assert self._outcome is not None
        self._events.emit(events.FaultInjected, self.name, kind="outcome")
        return self._outcome()

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def __repr__(self) -> str:
        return f"FaultInjection({self.rate:g})"


__all__ = ["FaultInjection"]
