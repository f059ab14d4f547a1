"""One partition on its way through a consumer: its records in order, from the queue into transactions.

Records leave the queue only after their transaction: a lane that breaks begins again with what it held.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice

from backstay.messaging.applier import Applier, Counters
from backstay.messaging.broker import Subscription
from backstay.messaging.delivery import Delivery, read, words
from backstay.messaging.handlers import Handlers
from backstay.messaging.marks import Marks
from backstay.messaging.record import Partition, Record

log = logging.getLogger("backstay.messaging")

BATCH = 100  # events in one transaction, at most
LARGE_BATCH = 500  # the same where every handler takes batches
RELEASE_TIMEOUT = 15.0  # seconds for a transaction in flight when the partition is taken away; then it is rolled back
RESTART_WAIT = 1.0  # seconds before a lane that broke begins again


class Lane:
    """The records of one partition. It is its applier's `Patience`: while it waits, the partition is paused."""

    def __init__(
        self,
        partition: Partition,
        handlers: Handlers,
        applier: Applier,
        subscription: Subscription,
        marks: Marks,
        counters: Counters,
    ) -> None:
        self.partition = partition
        self.trouble: str | None = None
        self._handlers = handlers
        self._applier = applier
        self._subscription = subscription
        self._marks = marks
        self._counters = counters
        self._batch = LARGE_BATCH if handlers.works_in_batches else BATCH
        self._queue: deque[Record | None] = deque()  # None: the end of the partition was here
        self._wake = asyncio.Event()
        self._stopping = False
        self._resting = False
        self._paused = False
        self._task = asyncio.create_task(self._run(), name=f"lane-{partition}")

    def add(self, records: Sequence[Record]) -> None:
        """The next records of the partition."""
        self._queue.extend(records)
        self._wake.set()

    def reached_end(self) -> None:
        """The end of the partition is behind what was added."""
        self._queue.append(None)
        self._wake.set()

    async def stop(self) -> None:
        """Drop what has not begun; let the transaction in flight finish, or roll it back if that takes too long."""
        self._stopping = True
        self._wake.set()
        if self._resting:
            self._task.cancel()
        _, late = await asyncio.wait({self._task}, timeout=RELEASE_TIMEOUT)
        if late:
            log.warning("consumer.release-timed-out", extra={"partition": str(self.partition)})
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=RELEASE_TIMEOUT)

    async def rest(self, seconds: float, reason: str | None) -> None:
        """Wait between two tries, with the partition paused."""
        self.trouble = reason
        if not self._paused and seconds > 0.05:
            self._paused = True
            self._subscription.pause(self.partition)
        if self._stopping:
            raise asyncio.CancelledError
        self._resting = True
        try:
            await asyncio.sleep(seconds)
        finally:
            self._resting = False

    def recovered(self) -> None:
        self.trouble = None
        if self._paused:
            self._paused = False
            self._subscription.resume(self.partition)

    async def _run(self) -> None:
        while not self._stopping:
            try:
                await self._work()
            except asyncio.CancelledError as error:
                if self._stopping or _is_cancelled():
                    raise
                await self._broke(error)  # a handler raised it: nobody cancelled the lane
            except Exception as error:  # noqa: BLE001  # a lane that ended would stall its partition in silence
                await self._broke(error)

    async def _broke(self, error: BaseException) -> None:
        log.error("consumer.lane-broke", extra={"partition": str(self.partition)}, exc_info=error)
        await self.rest(RESTART_WAIT, f"{self.partition} broke: {words(error)}")

    async def _work(self) -> None:
        while not self._stopping:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            elif self._queue[0] is None:
                self._marks.reach_end(self.partition)
                self._queue.popleft()
            else:
                await self._next()

    async def _next(self) -> None:
        """Finish the next records: as many as may share a transaction."""
        last, size, deliveries = self._gather()
        if deliveries:
            await self._applier.apply(deliveries, self)
        self._counters.skipped += size - len(deliveries)
        for _ in range(size):
            self._queue.popleft()
        self._subscription.done(self.partition, (last.offset or 0) + 1, size)

    def _gather(self) -> tuple[Record, int, list[Delivery]]:
        """Return the last of the next records that fit into one transaction, their number, and those for a handler."""
        last, size, deliveries = None, 0, list[Delivery]()
        for record in islice(self._queue, self._batch):
            delivery = None if record is None else read(record, self._handlers)
            if record is None or (delivery is not None and deliveries and not delivery.may_share):
                break
            last, size = record, size + 1
            if delivery is not None:
                deliveries.append(delivery)
                if not delivery.may_share:
                    break
        assert last is not None, "only called with a record at the front"
        return last, size, deliveries


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
