"""Time limiter: a call ends after some seconds, or when the request's deadline passes, whichever is first.

All calls of a limiter have the same time-out, so the oldest in flight is the next to expire: one timer of the event
loop serves them all, at a tenth of what `asyncio.timeout` costs a call. What a time-out does to the task is the same:
it is cancelled, and that cancellation, and no other, becomes a `TimeoutError`.
"""

import asyncio
from asyncio import AbstractEventLoop, CancelledError, Task
from dataclasses import dataclass
from time import monotonic
from typing import Any, ParamSpec, TypeVar
from weakref import WeakKeyDictionary, ref

from backstay.resilience.config import check
from backstay.resilience.deadline import clamp, current
from backstay.resilience.policy import Call, Guarded, Policy

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class TimeLimiterStatistics:
    """How calls ended."""

    successful: int
    failed: int
    timeout: int


class Table:
    """The calls in flight on one event loop, oldest first, and the one timer that ends those whose time is over."""

    __slots__ = ("_armed", "_live", "_loop", "_next", "_timeout")

    def __init__(self, loop: AbstractEventLoop, timeout: float) -> None:
        self._loop = ref(loop)
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
        loop = self._loop()
        if loop is not None:
            self._armed = True
            loop.call_later(max(0.0, delay), self._sweep)

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

    Put it inside the circuit breaker: only then the breaker sees the time-out as a failure.
    Raises `DeadlineExceeded` before the call when the request's deadline has passed already.
    """

    def __init__(self, timeout: float = DEFAULT_TIMEOUT, *, name: str = "time limiter") -> None:
        check(f"TimeLimiter '{name}'", (timeout > 0, f"timeout: {timeout} is not greater than 0 seconds"))
        self.name = name
        self.timeout = timeout
        self.successful = self.failed = self.timed_out = 0
        self._tables: WeakKeyDictionary[AbstractEventLoop, Table] = WeakKeyDictionary()
        self.loop: AbstractEventLoop | None = None  # the loop of the latest call, and its table
        self.here: Table

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function with this limit."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if current() is not None:
                return await self.until_deadline(call, *args, **kwargs)
            task = asyncio.current_task()
            assert task is not None  # a coroutine of ours is always run by a task
            cancelling = task.cancelling()
            loop = task.get_loop()
            table = self.here if self.loop is loop else self.table(loop)
            key = table.enter(task, monotonic())
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                self.ended(table.expired(key), task, cancelling, error)
                raise
            if table.expired(key):
                task.uncancel()  # the call swallowed its cancellation: its answer is as good as any
            self.successful += 1
            return result

        return guarded

    def table(self, loop: AbstractEventLoop) -> Table:
        """The calls in flight on that loop."""
        self.loop, self.here = loop, self._tables.setdefault(loop, Table(loop, self.timeout))
        return self.here

    def ended(self, expired: bool, task: Task[Any], cancelling: int, error: BaseException) -> None:
        """The call raised `error`; raises `TimeoutError` instead when the time was over and nobody else cancelled."""
        if expired and task.uncancel() <= cancelling and isinstance(error, CancelledError):
            self.timed_out += 1
            raise TimeoutError(f"TimeLimiter '{self.name}' recorded a timeout exception.") from error
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
            self.timed_out += 1
            raise TimeoutError(f"TimeLimiter '{self.name}' recorded a timeout exception.") from error
        except Exception:
            self.failed += 1
            raise
        self.successful += 1
        return result

    def statistics(self) -> TimeLimiterStatistics:
        """How calls ended so far."""
        return TimeLimiterStatistics(self.successful, self.failed, self.timed_out)

    def __repr__(self) -> str:
        return f"TimeLimiter({self.timeout:g})"


__all__ = ["Table", "TimeLimiter", "TimeLimiterStatistics"]
