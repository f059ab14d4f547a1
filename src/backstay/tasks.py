"""Concurrent work that has an owner, and the waits between its attempts.

`gather_all` awaits several coroutines to their end. `background` runs work beside its owner until the owner stops it.
`Backoff` computes how long to wait after a failure; it keeps no state and never sleeps.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from backstay.clock import SYSTEM, Clock

MAX_FACTOR = 100.0
MAX_EXPONENT = 64
"""Failures beyond this number no longer lengthen a wait, so that `factor ** exponent` is finite."""

log = logging.getLogger("backstay.tasks")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential waits between attempts: `first`, `first * factor`, … at most `cap` seconds.

    `jitter` is the share of each wait that is random: 0.5 gives between half of the wait and all of it, 0 exactly the
    wait. Jitter only shortens, so `cap` holds.
    """

    first: float
    cap: float
    factor: float = 2.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.first <= self.cap:
            raise ValueError(f"first={self.first} must be more than 0 and at most cap={self.cap} seconds")
        if not (1 <= self.factor <= MAX_FACTOR and 0 <= self.jitter <= 1):
            problem = f"factor={self.factor} must be from 1 to {MAX_FACTOR}, and jitter={self.jitter} from 0 to 1"
            raise ValueError(problem)

    def wait(self, failures: int, *, rng: Callable[[], float] = random.random) -> float:
        """Return the seconds to wait after that many failures in a row (1, 2, …)."""
        longest = min(self.cap, self.first * self.factor ** min(max(failures, 1) - 1, MAX_EXPONENT))
        return longest * (1.0 - self.jitter * rng()) if self.jitter else longest


RESTART = Backoff(first=0.5, cap=30.0, jitter=0.0)
"""Waits before background work that ended by itself starts again."""


class BackgroundTask:
    """Work without an end, restarted when it ends by itself; stopped by its owner.

    `start` and `stop` may each be called twice, and `stop` before `start`. As an async context manager it runs for the
    length of the block.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, None]],
        *,
        name: str,
        restart: Backoff | None = None,
        clock: Clock = SYSTEM,
    ) -> None:
        self.name = name
        self._work = work
        self._restart = restart or RESTART
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"BackgroundTask({self.name!r}, {'running' if self.running else 'stopped'})"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def running(self) -> bool:
        """True if it was started and not stopped since."""
        return self._task is not None

    def start(self) -> None:
        """Run the work from now on, in a task of its own."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._supervise(), name=self.name)

    async def stop(self) -> None:
        """Cancel the work, and return when it has ended."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _supervise(self) -> None:
        failures = 0
        while True:
            began = self._clock.monotonic()
            reason, cause = "it returned", None
            try:
                await self._work()
            except Exception as error:  # noqa: BLE001 - supervised: logged, and started again
                reason, cause = f"{type(error).__name__}: {error}", error
            # Work that has run for longer than the longest wait is healthy: its next failure counts as the first.
            failures = 1 if self._clock.monotonic() - began > self._restart.cap else failures + 1
            wait = self._restart.wait(failures)
            fields = {"task": self.name, "error": reason, "restart_in": wait}
            log.error("tasks.task_ended", extra=fields, exc_info=cause)
            await self._clock.sleep(wait)


def background(
    work: Callable[[], Coroutine[Any, Any, None]], *, name: str, restart: Backoff | None = None, clock: Clock = SYSTEM
) -> BackgroundTask:
    """Start `work` in a task of its own and return that; the caller owns it and must `stop` it."""
    task = BackgroundTask(work, name=name, restart=restart, clock=clock)
    task.start()
    return task


async def gather_all(*works: Awaitable[T]) -> list[T]:
    """Await all of them concurrently and return their results in order.

    If one fails, the others are awaited to their end all the same and then its error is raised (the first one's, in
    the order given). `asyncio.gather` would leave them running, without an owner.
    """
    results = await asyncio.gather(*works, return_exceptions=True)
    found: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found


__all__ = ["RESTART", "BackgroundTask", "Backoff", "background", "gather_all"]
