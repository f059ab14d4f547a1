"""Replay of dead letters on request: each gets its handler again, in a transaction of its own."""

import asyncio
import logging

from backstay.db import Database, DatabaseError, Row, Transaction
from backstay.messaging.applier import Applier, Counters, is_of_the_moment
from backstay.messaging.dead_letters import dead_letter
from backstay.messaging.delivery import read, words
from backstay.messaging.errors import Unreadable
from backstay.messaging.handlers import Handlers
from backstay.messaging.inbox import claim, sql

log = logging.getLogger("backstay.messaging")

BATCH = 100  # dead letters taken up at a time


class Replayer:
    """Polls every `every` seconds for dead letters of the group with a replay request."""

    def __init__(
        self, db: Database, group: str, handlers: Handlers, applier: Applier, counters: Counters, *, every: float
    ) -> None:
        self._db = db
        self._group = group
        self._handlers = handlers
        self._applier = applier
        self._counters = counters
        self._every = every

    async def run(self) -> None:
        """Replay what is requested, until cancelled."""
        while True:
            try:
                await self.replay_requested()
            except DatabaseError as error:
                log.warning("consumer.replay-delayed", extra={"group": self._group, "error": words(error)})
            await asyncio.sleep(self._every)

    async def replay_requested(self) -> None:
        """Try the requested ones until none is left that can be tried; those of a key one after another."""
        tried: set[int] = set()
        while rows := await self._db.fetch(sql.requested, self._group, BATCH):
            fresh = [row["id"] for row in rows if row["id"] not in tried]
            if not fresh:
                return
            for number in fresh:
                tried.add(number)
                await self._try(number)

    async def _try(self, number: int) -> None:
        try:
            if await self._replay(number):
                self._counters.replayed += 1
        except Exception as error:  # noqa: BLE001  # sorted right here
            if is_of_the_moment(error):
                log.info("consumer.replay-delayed", extra={"group": self._group, "id": number, "error": words(error)})
                return
            log.warning("consumer.replay-failed", extra={"group": self._group, "id": number, "error": words(error)})
            await self._db.execute(sql.failed_again, number, words(error))

    async def _replay(self, number: int) -> bool:
        async with self._db.transaction() as tx:
            row = await tx.fetchrow(sql.lock_requested, number)
            if row is None:
                return False
            await self._apply(tx, row)
            await tx.execute(sql.replayed, number)
        return True

    async def _apply(self, tx: Transaction, row: Row) -> None:
        letter = dead_letter(row)
        delivery = read(letter.record, self._handlers)
        if delivery is None:
            raise Unreadable(f"type {letter.type!r} has no handler in group {self._group!r}")
        if delivery.fault is not None:
            raise delivery.fault
        # The lock on the dead letter guards it; the inbox has its row already, unless it was pruned.
        await claim(tx, self._group, [delivery.id])
        await self._applier.handle(tx, [delivery])
