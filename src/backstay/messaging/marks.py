"""A group's positions, kept in the database: where it has started, and where it first caught up.

Facts arrive from subscriptions and lanes and are written by one task of its own, so that a database that is away
delays them and loses none.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from backstay.db import Database, DatabaseError
from backstay.messaging.inbox import sql
from backstay.messaging.record import Partition

log = logging.getLogger("backstay.messaging")

RETRY = 1.0  # seconds until a failed write is tried again


class Marks:
    """The marks of one group."""

    def __init__(self, db: Database, group: str) -> None:
        self._db = db
        self._group = group
        self._counts: dict[str, int] = {}
        self._waiting: dict[tuple[str, Partition], None] = {}
        self._news = asyncio.Event()
        self._caught_up = False

    async def started(self) -> set[Partition]:
        """Return the partitions in which the group has ever committed."""
        rows = await self._db.fetch(sql.started, self._group)
        return {Partition(row["topic"], row["partition"]) for row in rows}

    async def caught_up(self, topics: Sequence[str]) -> bool:
        """Return whether the group has been at the end of all partitions of these topics; once true, true for ever."""
        if not self._caught_up:
            rows = await self._db.fetch(sql.caught_up, self._group, list(topics))
            self._caught_up = {row["topic"] for row in rows} >= set(topics)
        return self._caught_up

    def count(self, counts: Mapping[str, int]) -> None:
        """Set the number of partitions of each topic."""
        self._counts.update(counts)

    def start(self, partitions: Sequence[Partition]) -> None:
        """The group has committed in these partitions."""
        self._note("started", partitions)

    def reach_end(self, partition: Partition) -> None:
        """The group is at the end of this partition."""
        self._note("caught_up", [partition])

    async def write(self) -> None:
        """Write down what is reported, for ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.flush()
            except DatabaseError as error:
                log.warning("consumer.marks-delayed", extra={"group": self._group, "error": str(error)})
                self._news.set()
                await asyncio.sleep(RETRY)

    async def flush(self) -> None:
        """Write what has been reported and is not written yet."""
        for what, partition in list(self._waiting):
            statement = sql.mark_started if what == "started" else sql.mark_caught_up
            partitions = self._counts.get(partition.topic, 0)
            await self._db.execute(statement, self._group, partition.topic, partition.number, partitions)
            self._waiting.pop((what, partition), None)

    def _note(self, what: str, partitions: Sequence[Partition]) -> None:
        self._waiting.update(dict.fromkeys((what, partition) for partition in partitions))
        self._news.set()


async def forget_start(db: Database, group: str, *, topic: str | None = None) -> None:
    """Let the group begin at the beginning where its offset was lost: for an operator who knows why it was."""
    await db.execute(sql.forget_start, group, topic)
