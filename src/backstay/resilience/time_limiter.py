"""Time limiter: a call ends after some seconds, or when the request's deadline passes, whichever is first.

All calls of a limiter have the same time-out, so the oldest in flight is the next to expire: one timer of the event
loop serves them all, at a tenth of what `asyncio.timeout` costs a call. What a time-out does to the task is the same:
it is cancelled, and that cancellation, and no other, becomes a `TimeoutError`.
"""

import asyncio
import threading
from asyncio import AbstractEventLoop, CancelledError, Task
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import Any, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from backstay.resilience import events
from backstay.resilience.config import Seconds, check, in_seconds, within
from backstay.resilience.deadline import clamp, current
from backstay.resilience.exact import exact
from backstay.resilience.policy import Block, Call, Generator, Guarded, Policy

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

DEFAULT_TIMEOUT = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class TimeLimiterStatistics:
    """How calls ended."""

    successful: int
    failed: int
    timeout: int


class Table:
    """The calls in flight on one event loop, oldest first, and the one timer that ends those whose time is over."""

    __slots__ = ("__weakref__", "_armed", "_live", "_next", "_timeout", "loop")

    def __init__(self, loop: AbstractEventLoop | None, timeout: float) -> None:
        self.loop = loop
        self._timeout = timeout
        self._live: dict[int, tuple[float, Task[Any]]] = {}
        self._next = 0
        self._armed = False

    def enter(self, task: Task[Any], now: float) -> int:
        """Watch `task` from now (monotonic seconds) on; returns the key to leave with."""
        self._next = key = self._next + 1
        self._live[key] = (now + self._timeout, task)
        if not self._armed:
            self._arm(self._timeout)
        return key

    def expired(self, key: int) -> bool:
        """Watch no longer; whether the time was over (the task was cancelled then)."""
        return self._live.pop(key, None) is None

    def _arm(self, delay: float) -> None:
        assert self.loop is not None
        self._armed = True
        self.loop.call_later(max(0.0, delay), self._sweep)

    def _sweep(self) -> None:
        now = monotonic()
        due = []
        for key, (deadline, task) in self._live.items():
            if deadline > now:
                break
            due.append((key, task))
        for key, task in due:
            del self._live[key]
            task.cancel()
        self._armed = False
        if self._live:
            self._arm(next(iter(self._live.values()))[0] - now)


class TimeLimiter(Policy):
    """Cancels a call after `timeout` seconds and raises `TimeoutError`.

    Put it inside the circuit breaker: only then the breaker sees the time-out as a failure. A plain function can't be
    cancelled: isolate it in a `ThreadPoolBulkhead` first. For an async generator the limit is on each of its items.
    Raises `DeadlineExceeded` before the call when the request's deadline has passed already.
    """

    def __init__(self, timeout: Seconds = DEFAULT_TIMEOUT, *, name: str = "time limiter") -> None:
        self.timeout = in_seconds(timeout)
        check(
            f"TimeLimiter '{name}'",
            (within(self.timeout, 0), f"timeout: {timeout!r} is not a number of seconds greater than 0"),
        )
        self.name = name
        self.successful = self.failed = self.timed_out = 0
        self._events = events.Publisher()
        self._tables: WeakValueDictionary[int, Table] = WeakValueDictionary()  # a live table keeps its loop alive
        self._lock = threading.Lock()
        self.latest = Table(None, self.timeout)  # of the loop that called last

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with this limit."""
        guarded: Guarded[P, R] = exact(_around, call, self, asyncio.current_task, monotonic)
        return guarded

    def wrap_generator(self, call: Generator[P, R]) -> Generator[P, R]:
        """Guard each step of an async generator with this limit."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
            async with aclosing(call(*args, **kwargs)) as items:
                step = self.wrap(items.__anext__)
                while True:
                    try:
                        item = await step()
                    except StopAsyncIteration:
                        return
                    yield item

        return guarded

    def block(self) -> Block:
        """Limit a block."""
        return _Limited(self)

    def table(self, loop: AbstractEventLoop) -> Table:
        """The calls in flight on that loop."""
        with self._lock:
            table = self._tables.get(id(loop))
            if table is None:
                table = self._tables[id(loop)] = Table(loop, self.timeout)
            self.latest = table
        return table

    def ended(self, expired: bool, task: Task[Any], cancelling: int, error: BaseException) -> None:
        """The call raised `error`; raises `TimeoutError` instead when the time was over and nobody else cancelled."""
        if expired and task.uncancel() <= cancelling and isinstance(error, CancelledError):
            raise self.expire() from error
        if isinstance(error, Exception):
            self.failed += 1

    async def until_deadline(self, call: Call[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same for a request with a deadline, whose time-outs differ from call to call."""
        limit = asyncio.timeout(clamp(self.timeout))
        try:
            async with limit:
                result = await call(*args, **kwargs)
        except TimeoutError as error:
            if not limit.expired():
                self.failed += 1
                raise
            raise self.expire() from error
        except Exception:
            self.failed += 1
            raise
        self.successful += 1
        return result

    def expire(self) -> TimeoutError:
        """Count a call that is out of time; the error to raise for it."""
        self.timed_out += 1
        self._events.emit(events.TimedOut, self.name, timeout=self.timeout)
        return TimeoutError(f"TimeLimiter '{self.name}' recorded a timeout exception.")

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> TimeLimiterStatistics:
        """How calls ended so far."""
        return TimeLimiterStatistics(self.successful, self.failed, self.timed_out)

    def __repr__(self) -> str:
        return f"TimeLimiter({self.timeout:g})"


class _Limited(Block):
    """A block with a limit."""

    def __init__(self, limiter: TimeLimiter) -> None:
        self._limiter = limiter
        self._limit: asyncio.Timeout

    async def enter(self) -> None:
        self._limit = asyncio.timeout(clamp(self._limiter.timeout))
        await self._limit.__aenter__()

    async def leave(self, error: BaseException | None) -> None:
        try:
            await self._limit.__aexit__(type(error) if error else None, error, error.__traceback__ if error else None)
        except TimeoutError:
            raise self._limiter.expire() from error
        if error is None:
            self._limiter.successful += 1
        elif isinstance(error, Exception):
            self._limiter.failed += 1


def _around(
    call: Call[P, R],
    limiter: TimeLimiter,
    current_task: Callable[[], Task[Any] | None],
    now: Callable[[], float],
) -> Guarded[P, R]:
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        if current() is not None:
            return await limiter.until_deadline(call, *args, **kwargs)
        task = current_task()
        assert task is not None  # a coroutine of ours is always run by a task
        cancelling, loop, table = task.cancelling(), task.get_loop(), limiter.latest
        if table.loop is not loop:
            table = limiter.table(loop)
        key = table.enter(task, now())
        try:
            result = await call(*args, **kwargs)
        except BaseException as error:
            limiter.ended(table.expired(key), task, cancelling, error)
            raise
        if table.expired(key):
            task.uncancel()  # the call swallowed its cancellation: its answer is as good as any
        limiter.successful += 1
        return result

    return guarded


__all__ = ["Table", "TimeLimiter", "TimeLimiterStatistics"]
