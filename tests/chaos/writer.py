"""A writer: random transactions over several aggregates, some rolled back, some slow to commit; it records each.

python -m tests.chaos.writer (see model.Role)
"""

import asyncio
import random
import time
from uuid import uuid4

from tests.chaos import mutants
from tests.chaos.model import AGGREGATES, Moved, Role

from backstay.db import Database, DatabaseError, OutcomeUnknown
from backstay.outbox import Outbox, OutboxRows
from backstay.testing.history import Ended, Recorder, Tried, Written

TASKS = 6
ROLLED_BACK = 0.12  # of all transactions
SLOW = 0.04  # commit late, so that younger numbers overtake them
PADDING = "x" * 150

LOCK = "SELECT name, version FROM aggregates WHERE name = ANY ($1) ORDER BY name FOR NO KEY UPDATE"
WRITE = """WITH new AS (
    INSERT INTO written (id, aggregate, version) SELECT * FROM unnest($1::uuid[], $2::text[], $3::bigint[])
)
UPDATE aggregates SET version = greatest(version, new.top)
FROM (SELECT aggregate, max(version) AS top FROM unnest($2::text[], $3::bigint[]) AS n(aggregate, version) GROUP BY 1)
     AS new
WHERE name = new.aggregate"""


class RollBack(Exception):
    """Somebody changed their mind."""


class Writer:
    """Works through transactions at a steady rate of events."""

    def __init__(self, role: Role, db: Database, recorder: Recorder) -> None:
        self._role, self._db, self._recorder = role, db, recorder
        self._outbox = Outbox(db)
        self._random = random.Random()  # each life its own, or a killed writer repeats itself
        self._rate = float(role.options["RATE"])
        self._started, self._events = time.monotonic(), 0
        self._dual = mutants.dual_writer(role)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(TASKS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            late = self._events / self._rate - (time.monotonic() - self._started)
            if late > 0:
                await asyncio.sleep(late)
            name = uuid4().hex
            try:
                await self._transact(name)
            except OutcomeUnknown:
                self._recorder.record(Ended(name, "unknown"))
            except (DatabaseError, RollBack) as error:
                self._recorder.record(Ended(name, "rolled-back"))
                if isinstance(error, DatabaseError):
                    await asyncio.sleep(0.2)
            else:
                self._recorder.record(Ended(name, "committed"))

    async def _transact(self, name: str) -> None:
        chance = self._random
        names = sorted(chance.sample(AGGREGATES, chance.choice((1, 1, 2, 4))))
        async with self._db.transaction() as tx:
            versions = {row["name"]: row["version"] for row in await tx.fetch(LOCK, names)}
            moves = [
                Moved(aggregate=name, version=versions[name] + step, written_at=time.monotonic_ns(), padding=PADDING)
                for name in names
                for step in range(1, chance.choice((1, 2, 3, 8)) + 1)
            ]
            rows = self._outbox.rows(*moves)
            events = tuple(
                Written(move.aggregate, move.version, str(id_)) for move, id_ in zip(moves, rows.ids, strict=True)
            )
            self._recorder.record(Tried(name, events))
            await tx.execute(WRITE, rows.ids, rows.keys, [move.version for move in moves])
            await tx.execute(OutboxRows.insert(), *rows.arguments)
            if self._dual is not None:
                await self._dual(rows)
            if chance.random() < SLOW:
                await asyncio.sleep(chance.random() * 0.3)
            if chance.random() < ROLLED_BACK:
                raise RollBack
        self._events += len(events)


async def main() -> None:
    role = Role.read()
    db = role.database(max_size=TASKS)
    with role.recorder() as recorder:
        writer = Writer(role, db, recorder)
        async with db, mutants.resources(role):
            await db.execute(
                "INSERT INTO aggregates SELECT name, 0 FROM unnest($1::text[]) AS name ON CONFLICT DO NOTHING",
                list(AGGREGATES),
            )
            await writer.run()


if __name__ == "__main__":
    asyncio.run(main())
