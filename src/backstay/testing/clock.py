"""A clock that only the test moves."""

import asyncio
import heapq
import itertools
from datetime import UTC, datetime, timedelta

_START = datetime(2026, 1, 1, tzinfo=UTC)
_TURNS = 20  # rounds of the event loop that count as "everybody has run"


class FakeClock:
    """A `Clock` at a fixed time; `advance` moves both its times and wakes who slept until then."""

    def __init__(self, now: datetime = _START, *, monotonic: float = 1000.0) -> None:
        self._now = now
        self._monotonic = monotonic
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def now(self) -> datetime:
        """Return the time that the test has set."""
        return self._now

    def monotonic(self) -> float:
        """Seconds; moves with `advance` only."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Wait until the test has advanced the clock by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), woken))
        await woken

    def wait(self, seconds: float) -> None:
        """Nothing else runs while a thread is blocked: the clock moves on at once."""
        self.advance(seconds)

    @property
    def sleepers(self) -> int:
        """The number of waiting sleepers."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move the clock; who is woken runs as soon as the test awaits something."""
        self._monotonic += seconds
        self._now += timedelta(seconds=seconds)
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)

    async def run(self, seconds: float) -> None:
        """Advance from one sleeper to the next, letting tasks run in between, so that loops go round."""
        end = self._monotonic + seconds
        await self.settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            self.advance(max(0.0, self._sleepers[0][0] - self._monotonic))
            await self.settle()
        self.advance(end - self._monotonic)
        await self.settle()

    async def settle(self) -> None:
        """Let every task that can run do so, without moving the clock."""
        for _ in range(_TURNS):
            await asyncio.sleep(0)
