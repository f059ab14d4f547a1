"""Time limiter: a call ends after some seconds, or when the request's deadline passes, whichever is first.

All calls of a limiter have the same time-out, so the oldest in flight is the next to expire: one timer of the event
loop serves them all, at a tenth of what `asyncio.timeout` costs a call. What a time-out does to the task is the same:
it is cancelled, and that cancellation, and no other, becomes a `TimeoutError`.
"""

import asyncio
import threading
from asyncio import AbstractEventLoop, CancelledError, Task, current_task
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from backstay.clock import SYSTEM, Clock
from backstay.metrics import Count
from backstay.resilience import events
from backstay.resilience.admission import Admission, AdmittedBlock, async_generator
from backstay.resilience.config import Seconds, check, in_seconds, within
from backstay.resilience.deadline import check as check_deadline
from backstay.resilience.deadline import remaining
from backstay.resilience.errors import DeadlineTimeout
from backstay.resilience.policy import AsyncItems, Block, Items, Plain

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

DEFAULT_TIMEOUT = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class TimeLimiterStatistics:
    """Calls by outcome; `deadline`: ended by the request's own deadline, which is no time-out of the limiter."""

    successful: Count
    failed: Count
    timeout: Count
    deadline: Count = 0


class Table:
    """The calls in flight on one event loop, oldest first, and the one timer that ends those whose time is over."""

    __slots__ = ("__weakref__", "_armed", "_clock", "_next", "_timeout", "live", "loop")

    def __init__(self, loop: AbstractEventLoop | None, timeout: float, clock: Clock) -> None:
        self.loop = loop
        self._clock = clock
        self._timeout = timeout
        self.live: dict[int, tuple[float, Task[Any]]] = {}  # one that isn't there any more was cancelled
        self._next = 0
        self._armed: object = None

    def enter(self, task: Task[Any], now: float) -> int:
        """Watch `task` from now (monotonic seconds) on; returns the key to leave with."""
        self._next = key = self._next + 1
        self.live[key] = (now + self._timeout, task)
        if self._armed is None:
            self._arm(self._timeout)
        return key

    def _arm(self, delay: float) -> None:
        assert self.loop is not None
        if self._clock is SYSTEM:
            self._armed = self.loop.call_later(max(0.0, delay), self._sweep)
        else:
            self._armed = self.loop.create_task(self._sleep(delay))

    async def _sleep(self, delay: float) -> None:
        await self._clock.sleep(delay)
        self._sweep()

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        due = []
        for key, (deadline, task) in self.live.items():
            if deadline > now:
                break
            due.append((key, task))
        for key, task in due:
            del self.live[key]
            task.cancel()
        self._armed = None
        if self.live:
            self._arm(next(iter(self.live.values()))[0] - now)


Watch = tuple[Table, int, Task[Any], int]
"""A call under way: where it is watched, by which key, its task, and how often that was being cancelled before."""


class TimeLimiter(Admission):
    """Cancels a call after `timeout` seconds and raises `TimeoutError`.

    Put it inside the circuit breaker: only then the breaker sees the time-out as a failure. A plain function can't be
    cancelled: isolate it in a `ThreadPoolBulkhead` first. For an async generator the limit is on each of its items.
    The request's own deadline ends the call, too, by `DeadlineTimeout`: no breaker takes that for a failure. Raises
    `DeadlineExceeded` before the call when the deadline has passed already.
    """

    def __init__(
        self, timeout: Seconds = DEFAULT_TIMEOUT, *, name: str = "time limiter", clock: Clock = SYSTEM
    ) -> None:
        self.timeout = in_seconds(timeout)
        check(
            f"TimeLimiter '{name}'",
            (within(self.timeout, 0), f"timeout: {timeout!r} is not a number of seconds greater than 0"),
        )
        self.name = name
        self.clock = clock
        self.now = clock.monotonic
        self.successful = self.failed = self.timed_out = self.cut_short = 0
        self._events = events.Publisher()
        self._tables: WeakValueDictionary[int, Table] = WeakValueDictionary()  # a live table keeps its loop alive
        self._lock = threading.Lock()
        self.latest = Table(None, self.timeout, clock)  # of the loop that called last

    # -- guarding -------------------------------------------------------------------------------------------------

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Refused: nothing can end a plain function."""
        raise TypeError(f"{self!r} guards coroutine functions only, and {call!r} is none")

    def wrap_plain_generator(self, call: Items[P, R]) -> Items[P, R]:
        """Refused: nothing can end a plain generator."""
        raise TypeError(f"{self!r} guards coroutine functions only, and {call!r} is none")

    def wrap_generator(self, call: AsyncItems[P, R]) -> AsyncItems[P, R]:
        """Guard each step of an async generator with this limit."""
        return async_generator(call, None, step=self.wrap)

    def block(self) -> Block:
        """Limit a block: `async with` only. It ends at the request's deadline, too."""
        return _LimitedBlock(self)

    def acquire(self) -> Watch:
        """Watch the current task."""
        task = current_task()
        if task is None:
            raise RuntimeError(f"{self!r} ends a call by cancelling its task: it needs one of asyncio")
        loop, table = task.get_loop(), self.latest
        if table.loop is not loop:
            table = self.table(loop)
        return table, table.enter(task, self.now()), task, task.cancelling()

    def settle(self, token: Watch, error: BaseException | None, result: object = None) -> None:  # noqa: ARG002 - any result
        """Watch no longer; raises `TimeoutError` instead of `error` if time was over and nothing else cancelled."""
        table, key, task, cancelling = token
        expired = table.live.pop(key, None) is None
        if error is None and not expired:
            self.successful += 1
            return
        expired = expired and current_task() is task  # another task may leave what this one has entered
        if error is None:
            if expired:
                task.uncancel()  # the call swallowed its cancellation: its answer is as good as any
            self.successful += 1
        elif expired and task.uncancel() <= cancelling and isinstance(error, CancelledError):
            raise self.expire() from error
        elif isinstance(error, DeadlineTimeout):
            self.cut_short += 1
        elif isinstance(error, StopAsyncIteration):  # the end of a generator, not of a call
            self.successful += 1
        elif isinstance(error, Exception):
            self.failed += 1

    def table(self, loop: AbstractEventLoop) -> Table:
        """Return the calls in flight on that loop."""
        with self._lock:
            table = self._tables.get(id(loop))
            if table is None:
                table = self._tables[id(loop)] = Table(loop, self.timeout, self.clock)
            self.latest = table
        return table

    def expire(self) -> TimeoutError:
        """Count a call that is out of time; the error to raise for it."""
        self.timed_out += 1
        self._events.emit(events.TimedOut, self.name, timeout=self.timeout)
        return TimeoutError(f"TimeLimiter '{self.name}' recorded a timeout exception.")

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> TimeLimiterStatistics:
        """Return the calls so far by outcome."""
        return TimeLimiterStatistics(self.successful, self.failed, self.timed_out, self.cut_short)

    def __repr__(self) -> str:
        return f"TimeLimiter({self.timeout:g})"


class _LimitedBlock(AdmittedBlock):
    """A block with a limit, and with the request's deadline as another."""

    def __init__(self, limiter: TimeLimiter) -> None:
        super().__init__(limiter)
        self._limiter = limiter
        self._deadline: asyncio.Timeout | None = None

    def check_plain(self) -> None:
        raise TypeError(f"{self._limiter!r} ends a block by cancelling its task: it needs `async with`")

    def enter_plain(self) -> Any:
        self.check_plain()

    async def enter(self) -> None:
        check_deadline()
        left = remaining()
        if left is not None and left < self._limiter.timeout:
            self._deadline = asyncio.timeout(left)
            await self._deadline.__aenter__()
        self._token = self._limiter.acquire()

    async def leave(self, error: BaseException | None) -> None:
        if self._deadline is not None:
            try:
                await self._deadline.__aexit__(type(error) if error else None, error, None)
            except TimeoutError:
                late = DeadlineTimeout("the deadline of the request passed in the block")
                self.leave_plain(late)
                raise late from error
        self.leave_plain(error)


__all__ = ["Table", "TimeLimiter", "TimeLimiterStatistics"]
