"""One value kept fresh in the background: fetched at once, again when it is due, and with backoff while that fails.

The last good value stays in use while the other side is down; whoever uses it decides how old it may get.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from backstay.clock import SYSTEM, Clock, pause
from backstay.tasks import BackgroundTask, Backoff

FETCH_TIMEOUT = 5.0  # seconds
RETRY = Backoff(first=0.1, cap=2.0)
"""Waits after failed fetches."""

T = TypeVar("T")


class Refreshed(Generic[T]):
    """The background fetch of one value: `fetch` gives it and the seconds until it should be fetched again."""

    def __init__(
        self,
        fetch: Callable[[], Awaitable[tuple[T, float]]],
        *,
        timeout: float = FETCH_TIMEOUT,
        clock: Clock = SYSTEM,
    ) -> None:
        self._fetch = fetch
        self._timeout = timeout
        self._clock = clock
        self._wanted = asyncio.Event()
        self._task = BackgroundTask(self._run, name="refresh", clock=clock)
        self.value: T | None = None
        self.fetched_at: float | None = None
        """Monotonic time of the last success."""
        self.failures = 0
        """In a row."""
        self.last_error: str | None = None

    async def __aenter__(self) -> Self:
        self._task.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._task.stop()

    @property
    def age(self) -> float:
        """Seconds since the last success; infinite before the first."""
        return float("inf") if self.fetched_at is None else self._clock.monotonic() - self.fetched_at

    def want(self) -> None:
        """Request a fetch now instead of when it is due."""
        self._wanted.set()

    async def _run(self) -> None:
        while True:
            self._wanted.clear()
            await pause(self._clock, await self._attempt(), self._wanted)

    async def _attempt(self) -> float:
        try:
            async with asyncio.timeout(self._timeout):
                self.value, due = await self._fetch()
        except Exception as error:  # noqa: BLE001 - whatever the fetch raises, the loop goes on and says so
            self.failures += 1
            self.last_error = f"{type(error).__name__}: {error}"
            return RETRY.wait(self.failures)
        self.fetched_at = self._clock.monotonic()
        self.failures = 0
        self.last_error = None
        return due
