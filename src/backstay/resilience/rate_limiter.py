"""Rate limiter: so many calls a period, counted in cycles from the limiter's creation.

Semantics follow `io.github.resilience4j.ratelimiter.internal.AtomicRateLimiter`, but a caller that can't be served
in time is refused at once instead of after its whole time-out, and a waiter that gives up hands its turn to the next.
"""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from backstay.clock import SYSTEM, Clock, pause
from backstay.resilience import events
from backstay.resilience.admission import Admission, Admitted
from backstay.resilience.config import Seconds, check, in_seconds, not_negative, whole, within
from backstay.resilience.deadline import remaining
from backstay.resilience.errors import DeadlineExceeded, RateLimited

E = TypeVar("E", bound=events.Event)

TURN: Admitted = ()  # what a call holds: nothing that could be given back


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """Permissions left in this period (negative: reserved ahead), how many wait, and how many were refused."""

    available_permissions: int
    rejected_total: int
    waiting: int = 0


class _Turn:
    """A permission of a later cycle that a caller waits for; it moves up when one before it is given back."""

    __slots__ = ("_loop", "due", "moved")

    def __init__(self, due: float, loop: asyncio.AbstractEventLoop | None) -> None:
        self.due = due
        self._loop = loop
        self.moved = asyncio.Event()

    def move(self, due: float) -> None:
        """Come earlier; callable from any thread."""
        self.due = due
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.moved.set)


class RateLimiter(Admission):
    """`limit` calls every `period` seconds; a caller waits at most `max_wait` seconds for its turn.

    A turn beyond the request's deadline isn't waited for: `DeadlineExceeded`. threads: used by several threads; around
    a plain function or block it is so by itself.
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
            (not_negative(self.max_wait), f"max_wait: {max_wait!r} is not 0 or more seconds"),
        )
        self.name = name
        self.limit = limit
        self.clock = clock
        self.now = clock.monotonic
        self._lock = threading.RLock()  # a finalizer that runs in the middle of a step may take it again
        self._shared = threads
        self._born = self.now()
        self._cycle = 0
        self._ends = self._born + self.period  # of this cycle
        self._permits = limit
        self._rejected = 0
        self._waiting: list[_Turn] = []  # in the order of their reservations
        self._events = events.Publisher()

    def make_thread_safe(self) -> None:
        """Be used by several threads from now on."""
        self._shared = True

    # -- turns ----------------------------------------------------------------------------------------------------

    def acquire(self) -> Admitted | None:
        """Take a permission of this period; None if there is none left."""
        if self._shared:
            with self._lock:
                return self._take()
        return self._take()

    def _take(self) -> Admitted | None:
        now = self.now()
        if now >= self._ends:
            self._turn(now)
        if self._permits > 0:
            self._permits -= 1
            return TURN
        return None

    def reserve(self, now: float) -> float | None:
        """Take a permission: the seconds to wait for it, or None when that is longer than `max_wait`."""
        with self._lock:
            wait = self._wait_at(now)
            if wait > self.max_wait:
                self._rejected += 1
                return None
            self._permits -= 1
            return wait

    def _wait_at(self, now: float) -> float:
        """Return the seconds from `now` until the next permission that isn't reserved."""
        if now >= self._ends:
            self._turn(now)
        if self._permits > 0:
            return 0.0
        ahead = 1 + (-self._permits) // self.limit  # cycles until this permission exists
        return max(0.0, self._born + (self._cycle + ahead) * self.period - now)

    def _turn(self, now: float) -> None:
        """Begin the cycle that `now` is in."""
        cycle = int((now - self._born) / self.period)
        self._permits = min(self._permits + (cycle - self._cycle) * self.limit, self.limit)
        self._cycle = cycle
        self._ends = self._born + (cycle + 1) * self.period

    def drain(self) -> None:
        """Take all permissions of this period, since an answer showed that the other side's limit is reached."""
        with self._lock:
            self._turn(self.now())
            self._permits = min(self._permits, 0)

    async def wait(self, held: Any = None) -> Admitted:  # noqa: ARG002 - nothing is held
        """Wait for a turn; raises `RateLimited` when it wouldn't come in time."""
        turn = self._line_up(asyncio.get_running_loop())
        served = False
        try:
            while (left := turn.due - self.now()) > 0:
                turn.moved.clear()
                await pause(self.clock, left, turn.moved)
            served = True
        finally:
            self._step_out(turn, served=served)
        return TURN

    def wait_plain(self) -> Admitted:
        """Do as `wait`, blocking this thread."""
        turn = self._line_up(None)
        served = False
        try:
            while (left := turn.due - self.now()) > 0:
                self.clock.wait(left)
            served = True
        finally:
            self._step_out(turn, served=served)
        return TURN

    def settle(self, token: Any, error: BaseException | None, result: object = None) -> None:
        """Nothing to give back: the call was made in its turn."""

    async def enter(self) -> None:
        """Wait for a turn by hand; raises `RateLimited` when it wouldn't come in time."""
        await self.admitted()

    def enter_plain(self) -> None:
        """Do as `enter`, blocking this thread."""
        self.admitted_plain()

    def _line_up(self, loop: asyncio.AbstractEventLoop | None) -> _Turn:
        """Reserve the next permission; raises `RateLimited`, or `DeadlineExceeded`, when it comes too late."""
        left = remaining()
        with self._lock:
            now = self.now()
            wait = self._wait_at(now)
            in_time = wait <= self.max_wait
            if in_time and (left is None or wait < left):
                self._permits -= 1
                turn = _Turn(now + wait, loop)
                self._waiting.append(turn)
                return turn
            self._rejected += not in_time
        if in_time:
            raise DeadlineExceeded(self.name, wait)
        self._events.emit(events.RateLimitRejected, self.name, retry_after=wait)
        raise RateLimited(self.name, wait)

    def _step_out(self, turn: _Turn, *, served: bool) -> None:
        """Remove a waiting caller; one that gave up passes its turn to the next, and the last turn becomes free."""
        with self._lock:
            place = self._waiting.index(turn)
            later = self._waiting[place + 1 :]
            del self._waiting[place]
            if served:
                return
            self._permits += 1
            due = turn.due
            for each in later:
                each_due = each.due
                each.move(due)
                due = each_due

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> RateLimiterStatistics:
        """Return a snapshot."""
        with self._lock:
            now = self.now()
            if now >= self._ends:
                self._turn(now)
            return RateLimiterStatistics(self._permits, self._rejected, len(self._waiting))

    def __repr__(self) -> str:
        return f"RateLimiter({self.limit}, period={self.period:g})"


__all__ = ["RateLimiter", "RateLimiterStatistics"]
