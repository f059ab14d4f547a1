"""A consumer as a process of its own, for tests that kill it: python consumer_process.py DSN BOOTSTRAP FLAVOR TOPIC."""

import asyncio
import sys
from typing import Any

from backstay.db import Database, Transaction
from backstay.messaging import SHARED, Consumer, Envelope, Event, KafkaBroker


async def main(dsn: str, bootstrap: str, flavor: Any, topic: str) -> None:
    class Counted(Event, topic=topic, type="count.made", key="key"):
        key: str
        number: int

    db = Database("consumers", dsn=dsn)
    consumer = Consumer("killed", db=db, broker=KafkaBroker(bootstrap, flavor=flavor))

    @consumer.on(Counted, locks=SHARED)
    async def handle(event: Counted, tx: Transaction, envelope: Envelope) -> None:
        await tx.execute(
            "INSERT INTO ledger (event_id, key, number) VALUES ($1, $2, $3)", envelope.id, event.key, event.number
        )

    async with db, consumer:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
