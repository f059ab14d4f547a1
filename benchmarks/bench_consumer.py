"""What a consumer handles in a second: inbox, a line in a ledger and one UPDATE on 1,000 hot rows for each event.

`python benchmarks/bench_consumer.py [events] [runs]`: Apache Kafka and PostgreSQL (fsync on) on this machine, started
for it; one consumer process, six partitions. A handler per event shares its transaction with up to a hundred others; a
handler per batch gets up to five hundred events and works set by set.
"""

import asyncio
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from uuid import uuid4

import msgspec

from backstay.db import Component, Database, Transaction
from backstay.dev import apache, postgres
from backstay.dev.ports import free_port
from backstay.dev.program import spawn, stop, wait_until
from backstay.messaging import Consumer, Envelope, Event, KafkaBroker, Locks

SKUS = 1000
PARTITIONS = 6
MIGRATION = f"""
CREATE TABLE stock (sku text PRIMARY KEY, quantity bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO stock SELECT 'sku-' || n, 0 FROM generate_series(0, {SKUS - 1}) AS n;
CREATE TABLE ledger (event_id uuid NOT NULL, sku text NOT NULL, change int NOT NULL);
"""
LOCK = "SELECT FROM stock WHERE sku = ANY ($1) ORDER BY sku FOR NO KEY UPDATE"
EACH = """WITH line AS (INSERT INTO ledger VALUES ($1, $2, $3))
UPDATE stock SET quantity = quantity + $3 WHERE sku = $2"""
ALL = """WITH lines AS (SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[]) AS l(id, sku, change)),
written AS (INSERT INTO ledger SELECT * FROM lines)
UPDATE stock SET quantity = quantity + sums.change
FROM (SELECT sku, sum(change) AS change FROM lines GROUP BY sku) AS sums WHERE stock.sku = sums.sku"""


class Moved(Event, topic="bench", type="stock.moved", key="sku"):
    """Some of a product came or went."""

    sku: str
    change: int
    note: str


async def take(tx: Transaction, skus: list[str]) -> None:
    """Lock the rows of a batch."""
    await tx.execute(LOCK, skus)


LOCKS: Locks[Moved] = Locks(keys=lambda event: [event.sku], take=take)


def per_event(consumer: Consumer) -> None:
    """One statement an event."""

    @consumer.on(Moved, locks=LOCKS)
    async def moved(event: Moved, tx: Transaction, envelope: Envelope) -> None:
        await tx.execute(EACH, envelope.id, event.sku, event.change)


def per_batch(consumer: Consumer) -> None:
    """One statement a batch."""

    @consumer.on_batch(Moved, locks=LOCKS)
    async def moved(events: Sequence[Moved], tx: Transaction, envelopes: Sequence[Envelope]) -> None:
        ids = [envelope.id for envelope in envelopes]
        await tx.execute(ALL, ids, [event.sku for event in events], [event.change for event in events])


async def fill(broker: KafkaBroker, events: int) -> None:
    """Put events into the topic."""
    chance, note = random.Random(1), "x" * 220
    await broker.create_topics({"bench": PARTITIONS})
    async with broker.producer() as producer:
        for start in range(0, events, 2000):
            batch = []
            for _ in range(min(2000, events - start)):
                event = Moved(sku=f"sku-{chance.randrange(SKUS)}", change=chance.randint(-5, 5), note=note)
                data = msgspec.json.encode(event)
                batch.append(
                    Envelope.record_for(
                        topic="bench",
                        key=event.sku,
                        id=uuid4(),
                        type="stock.moved",
                        source="/bench",
                        data=data,
                        traceparent=f"00-{uuid4().hex}-00f067aa0ba902b7-00",
                    )
                )
            results = await producer.publish(batch)
            assert not any(results), results


async def measure(
    cluster: postgres.Cluster, broker: KafkaBroker, register: Callable[[Consumer], None], events: int, name: str
) -> tuple[float, float]:
    """Events in a second from the first handled to the last, and CPU µs an event of this process."""
    cluster.create_databases({name: "bench"})
    folder = Path(tempfile.mkdtemp())
    (folder / "0001_stock.sql").write_text(MIGRATION)
    db = Database(name, dsn=cluster.dsn(name, name, "bench"), max_size=6)
    db.requires(Component("stock", folder))
    consumer = Consumer(name, db=db, broker=broker)
    register(consumer)
    async with db, consumer:
        while not consumer.statistics().handled:
            await asyncio.sleep(0.005)
        first, began, cpu = consumer.statistics().handled, time.perf_counter(), time.process_time()
        while consumer.statistics().handled < events:
            await asyncio.sleep(0.005)
        seconds, used = time.perf_counter() - began, time.process_time() - cpu
        found = consumer.statistics()
        assert await db.fetchval("SELECT count(*) FROM ledger") == events
        assert not found.repeats, "a deadlock"
        right = "SELECT sum(quantity) FROM stock"
        assert await db.fetchval(right) == await db.fetchval("SELECT sum(change) FROM ledger")
    shutil.rmtree(folder)
    cluster.drop_databases([name])
    return (events - first) / seconds, used / (events - first) * 1e6


async def report(cluster: postgres.Cluster, bootstrap: str, events: int, runs: int) -> None:
    """Print both kinds of handler."""
    broker = KafkaBroker(bootstrap)
    await fill(broker, events)
    for what, register in (("per event", per_event), ("per batch", per_batch)):
        found = [await measure(cluster, broker, register, events, f"bench_{what[-5:]}_{run}") for run in range(runs)]
        rates, costs = zip(*found, strict=True)
        shown = ", ".join(f"{rate:,.0f}" for rate in rates)
        print(
            f"handler {what}: {statistics.median(rates):8,.0f} events/s (runs: {shown}), "
            f"{statistics.median(costs):.0f} µs CPU an event in Python",
            flush=True,
        )


def main(work: Callable[[postgres.Cluster, str], Awaitable[None]]) -> None:
    """Start what is needed, work, and stop it again."""
    folder = Path(tempfile.mkdtemp(prefix="backstay-bench-", dir="/tmp"))
    folder.chmod(0o755)
    apache.fetch()
    node = apache.create(folder / "kafka", log=folder / "kafka.log")
    cluster = postgres.create(folder / "pg", port=free_port(), log=folder / "postgres.log")
    started = [(program, spawn(program)) for program in (node.program(), cluster.program())]
    try:
        for (program, process), ready in zip(started, (node.is_ready, cluster.is_ready), strict=True):
            wait_until(ready, process, program, timeout=60)
        import uvloop

        uvloop.run(work(cluster, node.bootstrap))  # type: ignore[arg-type]
    finally:
        for program, process in started:
            stop(process, program)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    events, runs = (*map(int, sys.argv[1:]), *(60_000, 3)[len(sys.argv) - 1 :])
    main(lambda cluster, bootstrap: report(cluster, bootstrap, events, runs))
