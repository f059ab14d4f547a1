"""The contents of Kafka: every record of every topic, read once from the beginning to the end."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from backstay.dev.home import Running
from backstay.messaging import Envelope, KafkaBroker, MessagingError
from lab.system.kafka import broker_of

QUIET = 2.0  # seconds without a record after which a topic is at its end
TIMEOUT = 60.0  # seconds for all of it


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. `version` is its aggregate's, None where events of that type carry none."""

    topic: str
    partition: int
    offset: int
    key: str
    id: str
    type: str
    version: int | None
    at: float
    value: bytes


async def read_log(running: Running, topics: Iterable[str], since: datetime) -> list[Entry]:
    """Every readable record since a moment, each topic in the order of its partitions' offsets."""
    broker = broker_of(running, client_id="storm")
    try:
        async with asyncio.timeout(TIMEOUT):
            found = await asyncio.gather(*(_topic(broker, topic, since) for topic in topics))
    finally:
        await broker.aclose()
    entries = [entry for topic in found for entry in topic]
    return sorted(entries, key=lambda entry: (entry.topic, entry.partition, entry.offset))


async def _topic(broker: KafkaBroker, topic: str, since: datetime) -> list[Entry]:
    entries: list[Entry] = []
    tail = broker.tail(topic, since)
    try:
        while True:
            async with asyncio.timeout(QUIET if entries else 3 * QUIET):
                record = await anext(tail)
            try:
                entries.append(_entry(Envelope.read(record)))
            except MessagingError:
                continue
    except TimeoutError:
        return entries
    finally:
        await tail.aclose()


def _entry(envelope: Envelope) -> Entry:
    record = envelope.record
    value = record.value or b""
    version = json.loads(value).get("version") if value else None
    return Entry(
        topic=record.topic,
        partition=record.partition or 0,
        offset=record.offset or 0,
        key=(record.key or b"").decode(),
        id=str(envelope.id),
        type=envelope.type,
        version=version,
        at=record.timestamp.timestamp() if record.timestamp else 0.0,
        value=value,
    )
