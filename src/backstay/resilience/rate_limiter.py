"""Rate limiter: so many calls a period, counted in cycles from the limiter's creation.

Semantics follow `io.github.resilience4j.ratelimiter.internal.AtomicRateLimiter`, but a caller that can't be served
in time is refused at once instead of after its whole time-out, and a cancelled waiter gives its permission back.
"""

import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.resilience import events
from backstay.resilience.config import Seconds, check, in_seconds, whole, within
from backstay.resilience.errors import RateLimited
from backstay.resilience.exact import exact
from backstay.resilience.policy import Block, Call, Generator, Guarded, Plain, Policy

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """Permissions left in this period (negative: reserved ahead), who waits, and how many were refused."""

    available_permissions: int
    rejected_total: int
    waiting: int = 0


class RateLimiter(Policy):
    """`limit` calls every `period` seconds; a caller waits at most `max_wait` seconds for its turn.

    threads: used by several threads; around a plain function it is so by itself.
    """

    def __init__(
        self,
        limit: int,
        *,
        period: Seconds = 1.0,
        max_wait: Seconds = 0.0,
        name: str = "rate limiter",
        threads: bool = False,
        clock: Clock = SYSTEM,
    ) -> None:
        self.period, self.max_wait = in_seconds(period), in_seconds(max_wait)
        check(
            f"RateLimiter '{name}'",
            (whole(limit, 1), f"limit: {limit!r} is not a whole number of at least 1"),
            (within(self.period, 0), f"period: {period!r} is not a number of seconds greater than 0"),
            (self.max_wait == 0 or within(self.max_wait, 0), f"max_wait: {max_wait!r} is not 0 or more seconds"),
        )
        self.name = name
        self.limit = limit
        self.clock = clock
        self.now = clock.monotonic
        self._lock = threading.Lock() if threads else None
        self._born = self.now()
        self._cycle = 0
        self._ends = self._born + self.period  # of this cycle
        self._permits = limit
        self._rejected = 0
        self._waiting = 0
        self._events = events.Publisher()

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with this rate."""
        guarded: Guarded[P, R] = exact(_around, call, self)
        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function; waiting blocks its thread."""
        self.share()
        guarded: Plain[P, R] = exact(_around_plain, call, self)
        return guarded

    def wrap_generator(self, call: Generator[P, R]) -> Generator[P, R]:
        """Guard an async generator: its beginning counts."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
            await self.enter()
            async with aclosing(call(*args, **kwargs)) as items:
                async for item in items:
                    yield item

        return guarded

    def block(self) -> Block:
        """Count a block."""
        return _Turn(self)

    def share(self) -> None:
        """Be used by several threads from now on."""
        self._lock = self._lock or threading.Lock()

    def reserve(self, now: float) -> float | None:
        """Take a permission: the seconds to wait for it, or None when that is longer than `max_wait`."""
        if self._lock is None:
            return self._reserve(now)
        with self._lock:
            return self._reserve(now)

    def _reserve(self, now: float) -> float | None:
        if now >= self._ends:
            self._turn(now)
        if self._permits > 0:
            self._permits -= 1
            return 0.0
        ahead = 1 + (-self._permits) // self.limit  # cycles until this permission exists
        wait = self._born + (self._cycle + ahead) * self.period - now
        if wait > self.max_wait:
            self._rejected += 1
            return None
        self._permits -= 1
        return wait

    def _turn(self, now: float) -> None:
        """Begin the cycle that `now` is in."""
        cycle = int((now - self._born) / self.period)
        self._permits = min(self._permits + (cycle - self._cycle) * self.limit, self.limit)
        self._cycle = cycle
        self._ends = self._born + (cycle + 1) * self.period

    def drain(self) -> None:
        """Take all permissions of this period: what came back says that the other side has had enough."""
        self._turn(self.now())
        self._permits = min(self._permits, 0)

    async def enter(self) -> None:
        """Wait for a turn; raises `RateLimited` when it wouldn't come in time."""
        await self.wait_for(self.reserve(self.now()))

    def enter_plain(self) -> None:
        """The same, blocking this thread."""
        wait = self.reserve(self.now())
        if wait is None:
            raise self._refusal()
        if wait > 0:
            self.clock.wait(wait)

    async def wait_for(self, reserved: float | None) -> None:
        """Wait for what was reserved; a waiter who is cancelled gives it back."""
        if reserved is None:
            raise self._refusal()
        if reserved > 0:
            self._waiting += 1
            try:
                await self.clock.sleep(reserved)
            except BaseException:
                self._permits += 1
                raise
            finally:
                self._waiting -= 1

    def _refusal(self) -> RateLimited:
        retry_after = max(0.0, self._ends - self.now())
        self._events.emit(events.RateLimitRejected, self.name, retry_after=retry_after)
        refusal: RateLimited = RateLimited(self.name, retry_after)
        return refusal

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> RateLimiterStatistics:
        """A snapshot."""
        now = self.now()
        if now >= self._ends:
            self._turn(now)
        return RateLimiterStatistics(self._permits, self._rejected, self._waiting)

    def __repr__(self) -> str:
        return f"RateLimiter({self.limit}, period={self.period:g})"


class _Turn(Block):
    """A block at a limited rate."""

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    async def enter(self) -> None:
        await self._limiter.enter()

    def enter_plain(self) -> None:
        self._limiter.enter_plain()

    def leave_plain(self, error: BaseException | None) -> None:
        """Nothing to give back."""


def _around(call: Call[P, R], limiter: RateLimiter) -> Guarded[P, R]:
    now, reserve = limiter.now, limiter.reserve

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        wait = reserve(now())
        if wait != 0.0:
            await limiter.wait_for(wait)
        return await call(*args, **kwargs)

    return guarded


def _around_plain(call: Callable[P, R], limiter: RateLimiter) -> Plain[P, R]:
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        limiter.enter_plain()
        return call(*args, **kwargs)

    return guarded


__all__ = ["RateLimiter", "RateLimiterStatistics"]
