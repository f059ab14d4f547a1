"""Deliveries of several partitions in one transaction: what waits at the same moment goes together.

A partition alone often has one event at a time, and a transaction costs the same for one as for fifty. Nothing is
risked: when the common transaction fails, it leaves nothing behind, and each lane does its own part alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from backstay.messaging.delivery import Delivery

MOST = 500  # events in one transaction, but for a single part that has more

Transact = Callable[[list[Delivery]], Awaitable[object]]


class _Part:
    """The deliveries of one partition, and whether they were committed."""

    __slots__ = ("deliveries", "done")

    def __init__(self, deliveries: Sequence[Delivery]) -> None:
        self.deliveries = deliveries
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class Together:
    """Gathers parts for `gather` seconds since the last transaction began; the first after a pause goes at once."""

    def __init__(self, transact: Transact, gather: float) -> None:
        self._transact = transact
        self._gather = gather
        self._waiting: deque[_Part] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._began = float("-inf")

    async def take(self, deliveries: Sequence[Delivery]) -> bool:
        """Return whether these have had their effect, in a transaction with others'; if not, nothing has happened."""
        part = _Part(deliveries)
        self._waiting.append(part)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="consumer-together")
        try:
            return await asyncio.shield(part.done)
        except asyncio.CancelledError:
            if part in self._waiting:
                self._waiting.remove(part)
            raise

    async def _work(self) -> None:
        """Commit while partitions wait. A transaction in flight ends for all of its parts."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            pause = self._began + self._gather - loop.time()
            if pause > 0 and sum(len(part.deliveries) for part in self._waiting) < MOST:
                await asyncio.sleep(pause)
            self._began = loop.time()
            parts = self._next()
            try:
                await self._transact([delivery for part in parts for delivery in part.deliveries])
            except Exception:  # noqa: BLE001 - each lane meets it again alone, and sorts it there
                self._tell(parts, through=False)
            except BaseException:
                self._tell([*parts, *self._waiting], through=False)
                self._waiting.clear()
                raise
            else:
                self._tell(parts, through=True)

    def _next(self) -> list[_Part]:
        parts: list[_Part] = []
        size = 0
        while self._waiting and (not parts or size + len(self._waiting[0].deliveries) <= MOST):
            part = self._waiting.popleft()
            parts.append(part)
            size += len(part.deliveries)
        return parts

    def _tell(self, parts: Sequence[_Part], *, through: bool) -> None:
        for part in parts:
            if not part.done.done():
                part.done.set_result(through)
