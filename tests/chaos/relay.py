"""A relay of the chaos: the real one, under a clock of its own, which records what it acquires and deletes.

python -m tests.chaos.relay (see model.Role)
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.chaos import mutants
from tests.chaos.model import Role

from backstay.db import Database
from backstay.outbox import Outbox
from backstay.testing.history import Acquired, Deleted, Recorder

LEASE = 3.0  # seconds


class WrongClock:
    """Wall time off by hours, monotonic time from another origin and up to 5 % fast or slow."""

    def __init__(self, chance: random.Random) -> None:
        self._offset = timedelta(hours=chance.uniform(-48, 48))
        self._origin = chance.uniform(0, 1e6)
        self._speed = chance.uniform(0.95, 1.05)

    def now(self) -> datetime:
        return datetime.now(UTC) + self._offset

    def monotonic(self) -> float:
        return self._origin + time.monotonic() * self._speed

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)


class RecordingStore:
    """The store of a relay, watched."""

    def __init__(self, store: Any, recorder: Recorder, role: Role, db: Database) -> None:
        self._store, self._recorder, self._role, self._db = store, recorder, role, db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Any]:
        async with self._store.open() as session:
            yield RecordingSession(mutants.session(self._role, session, self._db), self._recorder)


class RecordingSession:
    def __init__(self, session: Any, recorder: Recorder) -> None:
        self._session, self._recorder = session, recorder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def acquire(self, *args: Any, **options: Any) -> Any:
        epochs = await self._session.acquire(*args, **options)
        self._recorder.record(Acquired(dict(epochs), time.monotonic_ns()))
        return epochs

    async def delete(self, relay: Any, rows: Any, epochs: Any) -> Any:
        asked, moment = dict(epochs), time.monotonic_ns()
        held = await self._session.delete(relay, rows, epochs)
        if done := {shard: epoch for shard, epoch in asked.items() if shard in held}:
            self._recorder.record(Deleted(done, moment))
        return held


async def main() -> None:
    role = Role.read()
    chance = random.Random(role.seed)
    mutants.relay(role)
    db = role.database()
    with role.recorder() as recorder:
        async with db, asyncio.TaskGroup() as group:
            strict = bool(role.options.get("STRICT"))
            relay = Outbox(db).relay(mutants.broker(role, role.broker()), name=role.name, lease=LEASE, strict=strict)
            relay._store = RecordingStore(relay._store, recorder, role, db)
            relay._clock = WrongClock(chance)
            relay._cycle = relay._new_cycle()
            async with relay:
                group.create_task(_tell(relay, role))
                await asyncio.Event().wait()


async def _tell(relay: Any, role: Role) -> None:
    """What it has counted, for whoever reads the logs."""
    while True:
        await asyncio.sleep(5)
        print(role.name, relay.statistics(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
