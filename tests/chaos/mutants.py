"""Deliberately broken variants. The checker is worth something only if it catches each of them.

    ack-first        the relay takes events for published that are only on their way
    cursor           the relay reads what is above the highest number it has seen, instead of what is there
    no-fence         the relay deletes without asking whether its epoch still counts, and trusts its lease for ever
    no-key-blocking  a record that failed is sent again later, and its successors don't wait
    offset-first     the consumer commits offsets of what it has received, not of what it has done
    no-inbox         the consumer doesn't remember what it has handled
    dual-write       the writer publishes inside of its transaction

`flaky` is sound: the broker refuses one record in 200 now and then, and the successors of its key wait. Nothing may be
found there.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from tests.chaos.model import TOPIC, Role

from backstay.db import Database
from backstay.messaging import PublishError, Record
from backstay.messaging.envelope import Envelope

MUTANTS = ("ack-first", "cursor", "no-fence", "no-key-blocking", "offset-first", "no-inbox", "dual-write")
REFUSED = 0.005  # of all records, where a mutant needs refusals


def broker(role: Role, real: Any) -> Any:
    """The broker as this relay sees it."""
    kinds = {"ack-first": AckFirst, "no-key-blocking": Flaky, "flaky": Flaky}
    if role.mutant not in kinds:
        return real
    return _Broker(real, lambda producer: kinds[role.mutant](producer, role.mutant))


class _Broker:
    def __init__(self, real: Any, wrap: Any) -> None:
        self._real, self._wrap = real, wrap

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def producer(self, *args: Any, **options: Any) -> Any:
        return self._wrap(self._real.producer(*args, **options))


class _Producer:
    def __init__(self, real: Any, mutant: str) -> None:
        self._real, self._mutant = real, mutant

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def __aenter__(self) -> Any:
        await self._real.__aenter__()
        return self

    async def __aexit__(self, *how: Any) -> None:
        await self._real.__aexit__(*how)


class AckFirst(_Producer):
    """Answers at once, sends in the background."""

    def __init__(self, real: Any, mutant: str) -> None:
        super().__init__(real, mutant)
        self._tasks: set[Any] = set()

    async def publish(self, records: Sequence[Record]) -> list[PublishError | None]:
        task = asyncio.create_task(self._real.publish(records))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return [None] * len(records)


class Flaky(_Producer):
    """Refuses a record now and then; as a mutant it forgets to hold back the rest of the key."""

    async def publish(self, records: Sequence[Record]) -> list[PublishError | None]:
        refused: set[int] = set()
        keys: set[bytes | None] = set()
        for index, record in enumerate(records):
            if record.key in keys or random.random() < REFUSED:
                refused.add(index)
                if self._mutant == "flaky":
                    keys.add(record.key)
        sent = iter(await self._real.publish([r for index, r in enumerate(records) if index not in refused]))
        no = PublishError("retriable", "refused by the test")
        return [no if index in refused else next(sent) for index in range(len(records))]


def session(role: Role, real: Any, db: Database) -> Any:
    """The relay's way to its table."""
    kinds: dict[str, Any] = {"cursor": CursorSession, "no-fence": UnfencedSession}
    return kinds[role.mutant](real, db) if role.mutant in kinds else real


class CursorSession:
    """Reads behind a position, per shard."""

    def __init__(self, real: Any, _db: Database) -> None:
        self._real = real
        self._cursor: dict[int, int] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def read(self, *args: Any, **options: Any) -> Any:
        rows = await self._real.read(*args, **options)
        fresh = [row for row in rows if row.seq > self._cursor.get(row.shard, 0)]
        for row in fresh:
            self._cursor[row.shard] = max(row.seq, self._cursor.get(row.shard, 0))
        return fresh


class UnfencedSession:
    """Deletes whatever it is asked to."""

    def __init__(self, real: Any, db: Database) -> None:
        self._real, self._db = real, db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def delete(self, relay: Any, rows: Any, epochs: Any) -> Any:
        await self._db.execute(
            "DELETE FROM outbox o USING unnest($1::smallint[], $2::bigint[]) AS a(shard, seq) "
            "WHERE o.shard = a.shard AND o.seq = a.seq",
            [shard for shard, seqs in rows.items() for _ in seqs],
            [seq for seqs in rows.values() for seq in seqs],
        )
        return frozenset(epochs)


def relay(role: Role) -> None:
    """What is broken inside of the relay."""
    if role.mutant == "no-fence":
        from backstay.outbox.leases import Leases

        Leases.valid = lambda self, now: True  # type: ignore[method-assign]
        Leases.seen = lambda self, me, shards: []  # type: ignore[method-assign]


def consumer(role: Role) -> None:
    """What is broken inside of the consumer."""
    if role.mutant == "offset-first":
        from backstay.messaging.lane import Lane

        add = Lane.add

        def done_already(self: Any, records: Sequence[Record]) -> None:
            add(self, records)
            self._subscription.done(self.partition, (records[-1].offset or 0) + 1, 0)

        step = Lane._next

        async def slowly(self: Any) -> None:
            """So that there is always something that is received and not done."""
            await asyncio.sleep(0.3)
            await step(self)

        Lane.add = done_already  # type: ignore[method-assign]
        Lane._next = slowly  # type: ignore[method-assign]
    if role.mutant == "no-inbox":
        from backstay.messaging import applier

        async def claim(tx: Any, group: str, ids: Any) -> Any:
            return set(ids), False

        applier.claim = claim


_producer: Any = None


@asynccontextmanager
async def resources(role: Role) -> AsyncIterator[None]:
    """What a broken writer needs."""
    global _producer
    if role.mutant != "dual-write":
        yield
        return
    async with role.broker().producer() as _producer:
        yield


def dual_writer(role: Role) -> Any:
    """Publishes rows before their commit."""
    return _publish if role.mutant == "dual-write" else None


async def _publish(rows: Any) -> None:
    records = [
        Envelope.record_for(topic=TOPIC, key=key, id=id_, type="move.made", source="/dual", data=payload.encode())
        for id_, key, payload in zip(rows.ids, rows.keys, rows.payloads, strict=True)
    ]
    await _producer.publish(records)
