"""Sliding windows of call outcomes: pure, O(1) per record, totals kept as they change.

Two kinds, as in Resilience4j: the last N calls (COUNT_BASED), or the last N seconds (TIME_BASED) in one-second
buckets, here on the monotonic clock, so that a step of the wall clock moves nothing.

Fast successes may be told late, many at once (`credit`), as long as that happens before anything else is recorded and,
in a window of time, they all fell into the second that `ends` closes.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from backstay.errors import ConfigError

FAILED = 1  # bits of an outcome
SLOW = 2
NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class WindowSize:
    """The size of a breaker's window: the last `calls` calls, or the last `seconds` seconds."""

    calls: int | None = None
    seconds: int | None = None

    def __post_init__(self) -> None:
        if (self.calls is None) == (self.seconds is None):
            raise ConfigError(["window: give calls or seconds, not both: last(100) or last(seconds=60)"])
        size = self.calls if self.calls is not None else self.seconds
        if size is None or size < 1:
            raise ConfigError([f"window: {size} is too small; at least 1"])


def last(calls: int | None = None, *, seconds: int | None = None) -> WindowSize:
    """`last(100)` calls, or `last(seconds=60)`."""
    return WindowSize(calls=calls, seconds=seconds)


class CountWindow:
    """The outcomes of the last `size` calls."""

    __slots__ = ("_next", "_ring", "ends", "failed", "size", "slow", "slow_failed", "total")

    def __init__(self, size: int) -> None:
        self.size = size
        self.ends = NEVER
        self._ring = bytearray(size)
        self._next = self.total = self.failed = self.slow = self.slow_failed = 0

    def record(self, outcome: int, now: float) -> None:  # noqa: ARG002 - the same signature as TimeWindow
        """Remember an outcome (bits FAILED and SLOW), forgetting the oldest when full."""
        at, size, ring = self._next, self.size, self._ring
        old = ring[at]
        self._next = (at + 1) % size
        if self.total < size:
            self.total += 1
        if old == outcome:
            return
        ring[at] = outcome
        self.failed += (outcome & FAILED) - (old & FAILED)
        if outcome > FAILED or old > FAILED:
            self.slow += (outcome >> 1) - (old >> 1)
            self.slow_failed += (outcome == FAILED | SLOW) - (old == FAILED | SLOW)

    def advance(self, now: float) -> None:
        """Nothing ages in a window of calls."""

    def credit(self, calls: int) -> None:
        """Remember so many fast successes."""
        size, at = self.size, self._next
        self._next = (at + calls) % size
        self.total = min(size, self.total + calls)
        if self.failed or self.slow:
            self._forget(at, min(size, at + calls))
            self._forget(0, min(at, at + calls - size))

    def _forget(self, start: int, end: int) -> None:
        """Fast successes from `start` to `end`, instead of what was there."""
        if end <= start:
            return
        old = self._ring[start:end]
        both = old.count(FAILED | SLOW)
        self.failed -= old.count(FAILED) + both
        self.slow -= old.count(SLOW) + both
        self.slow_failed -= both
        self._ring[start:end] = bytes(end - start)

    def outcomes(self) -> list[int]:
        """Return the outcomes in the window, oldest first."""
        ring = list(self._ring)
        return ring[self._next :] + ring[: self._next] if self.total == self.size else ring[: self.total]

    def resized(self, size: WindowSize, now: float) -> "Window":
        """Return a window of another size with as many of these outcomes as it holds."""
        return _filled(size, self.outcomes(), now)


class TimeWindow:
    """The outcomes of the current second and the `size` − 1 seconds before it."""

    __slots__ = ("_bucket", "_buckets", "_second", "ends", "failed", "size", "slow", "slow_failed", "total")

    def __init__(self, size: int, now: float) -> None:
        self.size = size
        self._buckets = [[0, 0, 0, 0] for _ in range(size)]
        self._second = int(now)
        self.ends = self._second + 1
        self._bucket = self._buckets[self._second % size]
        self.total = self.failed = self.slow = self.slow_failed = 0

    def record(self, outcome: int, now: float) -> None:
        """Remember an outcome (bits FAILED and SLOW) in the bucket of this second."""
        if now >= self.ends:
            self.advance(now)
        bucket = self._bucket
        bucket[0] += 1
        self.total += 1
        if outcome:
            failed, slow = outcome & 1, outcome >> 1
            bucket[1] += failed
            bucket[2] += slow
            bucket[3] += failed & slow
            self.failed += failed
            self.slow += slow
            self.slow_failed += failed & slow

    def credit(self, calls: int) -> None:
        """Remember so many fast successes, all of the second that is counted now."""
        self._bucket[0] += calls
        self.total += calls

    def resized(self, size: WindowSize, now: float) -> "Window":
        """Return a window of another size with these outcomes: a longer one starts with all of them as of now."""
        self.advance(now)
        both, failed, slow = self.slow_failed, self.failed - self.slow_failed, self.slow - self.slow_failed
        fast = self.total - both - failed - slow
        return _filled(size, [0] * fast + [SLOW] * slow + [FAILED] * failed + [FAILED | SLOW] * both, now)

    def advance(self, now: float) -> None:
        """Forget the buckets that fell out of the window."""
        second = int(now)
        for passed in range(min(second - self._second, self.size)):
            bucket = self._buckets[(self._second + 1 + passed) % self.size]
            self.total -= bucket[0]
            self.failed -= bucket[1]
            self.slow -= bucket[2]
            self.slow_failed -= bucket[3]
            bucket[:] = (0, 0, 0, 0)
        if second >= self._second:
            self._second = second
            self.ends = second + 1
            self._bucket = self._buckets[second % self.size]


class NoWindow:
    """Remembers nothing: of a state in which calls aren't counted."""

    __slots__ = ()

    total = failed = slow = slow_failed = 0
    ends = NEVER

    def record(self, outcome: int, now: float) -> None:
        """Forgotten at once."""

    def advance(self, now: float) -> None:
        """Nothing to forget."""

    def credit(self, calls: int) -> None:
        """Forgotten at once."""

    def resized(self, size: WindowSize, now: float) -> "Window":  # noqa: ARG002 - the same signature as its twins
        """Still nothing."""
        return self


Window = CountWindow | TimeWindow | NoWindow


def _filled(size: WindowSize, outcomes: Iterable[int], now: float) -> Window:
    window = open_window(size, now)
    for outcome in outcomes:
        window.record(outcome, now)
    return window


def open_window(size: WindowSize, now: float) -> Window:
    """Return an empty window of this size."""
    if size.calls is not None:
        return CountWindow(size.calls)
    return TimeWindow(size.seconds or 1, now)
