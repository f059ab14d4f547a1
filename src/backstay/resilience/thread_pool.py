"""Thread pool bulkhead: blocking code in a bounded pool of its own threads, so that it can't block the event loop.

A thread can't be cancelled. When the caller goes away (a time-out, a cancellation), the function runs on, and its
thread and its place in the queue stay taken until it ends: the bound is on what really runs.
"""

import asyncio
import contextvars
import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from backstay.resilience import events
from backstay.resilience.config import check, whole
from backstay.resilience.errors import BulkheadFull
from backstay.resilience.policy import Guarded

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

DEFAULT_THREADS = 8
DEFAULT_QUEUE = 100


@dataclass(frozen=True, slots=True)
class ThreadPoolStatistics:
    """A snapshot: threads at most and started, functions that run and wait, and how many were refused."""

    max_thread_pool_size: int
    thread_pool_size: int
    active_thread_count: int
    queue_depth: int
    queue_capacity: int
    rejected_total: int


class ThreadPoolBulkhead:
    """Makes a coroutine function of a blocking one: `threads` run at once, `queue` more wait, others are refused.

    The innermost layer of a pipeline around a plain function; or a decorator by itself. Close it (`with`, or `close`)
    to end its threads. Context variables reach the function.
    """

    def __init__(
        self, threads: int = DEFAULT_THREADS, *, queue: int = DEFAULT_QUEUE, name: str = "thread pool"
    ) -> None:
        check(
            f"ThreadPoolBulkhead '{name}'",
            (whole(threads, 1), f"threads: {threads!r} is not a whole number of at least 1"),
            (whole(queue, 0), f"queue: {queue!r} is not a whole number of at least 0"),
        )
        self.name = name
        self.threads = threads
        self.queue = queue
        self._events = events.Publisher()
        self._rejected = 0
        self._open()

    def _open(self) -> None:
        """Create the pool of this process: after a fork the parent's threads are gone, and its lock may be held."""
        self._process = os.getpid()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix=self.name)
        self._lock = threading.Lock()
        self._taken = self._running = 0

    def __call__(self, function: Callable[P, R]) -> Guarded[P, R]:
        """Return a coroutine function that runs `function` in a thread."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            return await asyncio.wrap_future(self._submit(functools.partial(function, *args, **kwargs)))

        return functools.wraps(function)(guarded)

    def _submit(self, work: Callable[[], R]) -> "Future[R]":
        if self._process != os.getpid():
            self._open()
        with self._lock:
            full = self._taken >= self.threads + self.queue
            self._rejected += full
            self._taken += not full
        if full:
            self._events.emit(events.BulkheadRejected, self.name)
            raise BulkheadFull(self.name)
        try:
            future = self._pool.submit(contextvars.copy_context().run, self._run, work)
        except BaseException:
            self._free(None)
            raise
        future.add_done_callback(self._free)
        return future

    def _run(self, work: Callable[[], R]) -> R:
        with self._lock:
            self._running += 1
        try:
            return work()
        finally:
            with self._lock:
                self._running -= 1

    def _free(self, _done: "Future[Any] | None") -> None:
        with self._lock:
            self._taken -= 1

    def close(self) -> None:
        """Refuse what comes, forget what waits, and wait for what runs."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> ThreadPoolStatistics:
        """Return a snapshot."""
        with self._lock:
            waiting = max(0, self._taken - self._running)
            started = len(self._pool._threads)
            return ThreadPoolStatistics(self.threads, started, self._running, waiting, self.queue, self._rejected)

    def __repr__(self) -> str:
        return f"ThreadPoolBulkhead({self.threads}, queue={self.queue})"


__all__ = ["ThreadPoolBulkhead", "ThreadPoolStatistics"]
