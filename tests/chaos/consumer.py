"""A consumer of the chaos: the real one; its handler writes the effect, and records what it saw.

python -m tests.chaos.consumer (see model.Role)
"""

import asyncio
import time
from collections.abc import Sequence

from tests.chaos import mutants
from tests.chaos.model import GROUP, Moved, Role

from backstay.db import Transaction
from backstay.messaging import SHARED, Consumer, Envelope
from backstay.testing.history import Recorder, Saw

EFFECT = "INSERT INTO effects (id, aggregate, version, written_at, applied_at) VALUES ($1, $2, $3, $4, $5)"
EFFECTS = """INSERT INTO effects (id, aggregate, version, written_at, applied_at)
SELECT id, aggregate, version, written_at, $5
FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::bigint[])
     WITH ORDINALITY AS e(id, aggregate, version, written_at, n)
ORDER BY n"""


def handle_each(consumer: Consumer, recorder: Recorder) -> None:
    @consumer.on(Moved, locks=SHARED)
    async def each(event: Moved, tx: Transaction, envelope: Envelope) -> None:
        recorder.record(Saw((str(envelope.id),)))
        now = time.monotonic_ns()
        await tx.execute(EFFECT, envelope.id, event.aggregate, event.version, event.written_at, now)


def handle_batches(consumer: Consumer, recorder: Recorder) -> None:
    @consumer.on_batch(Moved)
    async def many(events: Sequence[Moved], tx: Transaction, envelopes: Sequence[Envelope]) -> None:
        ids = [envelope.id for envelope in envelopes]
        recorder.record(Saw(tuple(map(str, ids))))
        names, versions = [event.aggregate for event in events], [event.version for event in events]
        await tx.execute(EFFECTS, ids, names, versions, [event.written_at for event in events], time.monotonic_ns())


async def main() -> None:
    role = Role.read()
    mutants.consumer(role)
    db = role.database()
    consumer = Consumer(GROUP, db=db, broker=role.broker())
    with role.recorder() as recorder:
        # The members of one group may differ: the first works event by event, the others batch by batch.
        (handle_batches if int(role.name[-1]) else handle_each)(consumer, recorder)
        async with db, consumer:
            while True:
                await asyncio.sleep(5)
                print(role.name, consumer.statistics(), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
