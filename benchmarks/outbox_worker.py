"""Processes of the outbox benchmark: a relay, a writer, a consumer. JSON on the command line says what to do.

relay     publishes until SIGTERM, then prints its statistics as JSON
writer    commits single events at a rate for some seconds; prints when each was committed
consumer  reads a topic from now on; prints when each event came
"""

import asyncio
import json
import signal
import statistics
import sys
import time
from typing import Any
from uuid import uuid4

import asyncpg
import uvloop

from backstay.db import Database
from backstay.messaging import KafkaBroker
from backstay.outbox import Outbox, append

NOTE = "x" * 240
TURN = 25  # transactions


async def relay(task: dict[str, Any]) -> None:
    """Publish until told to stop."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    db = Database(task["name"], dsn=task["dsn"])
    box = Outbox(db, source="/service/orders")
    async with db:
        one = box.relay(KafkaBroker(task["kafka"]), name=task.get("relay", "one"), wal=task["wal"])
        async with one:
            await stop.wait()
            found = one.statistics()
            counts = {"published": found.published, "reads": found.reads, "deletes": found.deletes}
            print(json.dumps(counts | {"shards": found.shards_owned, "streamed": found.shards_streamed}), flush=True)


async def writer(task: dict[str, Any]) -> None:
    """Commit one event after the other, at a rate."""
    connections = [await asyncpg.connect(task["dsn"]) for _ in range(task.get("connections", 4))]
    committed: list[tuple[int, float]] = []
    began, numbers = time.monotonic() + 0.1, iter(range(int(task["rate"] * task["seconds"])))
    trace = f"traceparent=00-{uuid4().hex}-00f067aa0ba902b7-01"
    keys = [str(uuid4()) for _ in range(1000)]

    async def write(connection: asyncpg.Connection) -> None:
        for n in numbers:
            wait = began + n / task["rate"] - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            payload = json.dumps({"n": n, "note": NOTE})
            await connection.execute(INSERT, uuid4(), task["topic"], keys[n % 1000], payload, trace)
            committed.append((n, time.monotonic()))

    await asyncio.gather(*(write(connection) for connection in connections))
    for connection in connections:
        await connection.close()
    print(json.dumps(committed), flush=True)


INSERT = """INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, tracingspancontext)
VALUES ($1, $2, $3, 'order.created', $4, $5)"""


def consumer(task: dict[str, Any]) -> None:
    """Note when each event arrives until `events` have come or nothing comes for a while."""
    from confluent_kafka import Consumer, TopicPartition

    client = Consumer(
        {
            "bootstrap.servers": task["kafka"],
            "group.id": str(uuid4()),
            "fetch.wait.max.ms": 100,
            "auto.offset.reset": "earliest",
        }
    )
    client.assign([TopicPartition(task["topic"], n, 0) for n in range(task["partitions"])])
    seen: list[tuple[int, float]] = []
    deadline = time.monotonic() + task["seconds"]
    while len(seen) < task["events"] and time.monotonic() < deadline:
        message = client.poll(0.5)
        if message is not None and message.error() is None:
            now = time.monotonic()
            seen.append((json.loads(message.value())["n"], now))
    client.close()
    print(json.dumps(seen), flush=True)


async def appends(task: dict[str, Any]) -> None:
    """CPU µs of this process for a transaction with one UPDATE, and for one with an event appended too."""
    db = Database(task["name"], dsn=task["dsn"])
    Outbox(db)
    async with db:
        await db.execute("CREATE TABLE IF NOT EXISTS thing (id int PRIMARY KEY, n int)")
        await db.execute("INSERT INTO thing VALUES (1, 0) ON CONFLICT DO NOTHING")
        found = []
        for _ in range(task["runs"]):
            pairs = [
                (await change(db, with_it=False), await change(db, with_it=True)) for _ in range(task["events"] // TURN)
            ]
            found.append(statistics.median(with_it - without for without, with_it in pairs[1:]))
        await db.execute("DELETE FROM outbox WHERE aggregatetype = 'none'")
    print(json.dumps(found), flush=True)


async def change(db: Database, *, with_it: bool) -> float:
    """CPU µs a transaction of a few; they take turns, because the machine's speed changes within a second."""
    began = time.process_time()
    for n in range(TURN):
        async with db.transaction() as tx:
            await tx.execute("UPDATE thing SET n = n + 1 WHERE id = $1", 1)
            if with_it:
                await append(tx.raw, topic="none", key="k", type="order.created", payload={"n": n, "note": NOTE})
    return (time.process_time() - began) / TURN * 1e6


if __name__ == "__main__":
    what, told = sys.argv[1], json.loads(sys.argv[2])
    if what == "consumer":
        consumer(told)
    else:
        uvloop.run({"relay": relay, "writer": writer, "appends": appends}[what](told))
