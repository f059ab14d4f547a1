"""Dead letters for those who read topics: what a consumer parks is copied to `<topic>.<group>.dlt`, by the outbox.

The copy is an event of its own, `dead-letter.parked`, written in the transaction that parks the record: there is a
copy exactly if there is a dead letter. Its topic is made when the first copy for it is on its way.
"""

from typing import Any

from backstay.messaging import Consumer, Parked
from backstay.runtime.jobs import Job, every

LOOK = 3.0  # seconds between looks whether a topic has to be made; a first copy waits so long in the outbox
TYPE = "dead-letter.parked"
MAX_VALUE = 500_000  # bytes of a record's value that are copied; a larger one is only in the table
MAX_KEY = 255  # characters


class DeadLetterTopics:
    """Copies what one consumer parks."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._made: set[str] = set()
        consumer.on_parked(self.copy)

    def job(self) -> Job:
        """What makes the topics."""
        return every(LOOK, self.make, name=f"dead-letter-topics-{self._consumer.group}")

    async def copy(self, tx: Any, parked: Parked) -> None:
        """Write the copy; nothing about it may keep a record from being parked."""
        from backstay.outbox import append

        await append(tx, topic=parked.topic, key=_key(parked), type=TYPE, payload=_payload(parked))

    async def make(self) -> None:
        """Create the topics that are needed and not known to exist."""
        broker = self._consumer.broker
        if broker is None:
            return
        if missing := await self._consumer.dead_letter_topics() - self._made:
            await broker.create_topics(dict.fromkeys(missing, 1))
            self._made |= missing


def _key(parked: Parked) -> str:
    """Return the record's key if the outbox can carry it, so that a key's copies stay in order; else the event's id."""
    try:
        key = (parked.record.key or b"").decode()
    except UnicodeDecodeError:
        key = ""
    return key if key and len(key) <= MAX_KEY and "\0" not in key else str(parked.event_id)


def _payload(parked: Parked) -> dict[str, object]:
    record = parked.record
    value = record.value
    return {
        "event_id": parked.event_id,
        "type": parked.type,
        "group": parked.group,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "cause": parked.cause,
        "attempts": parked.attempts,
        "waiting": parked.waiting,
        "key_base64": record.key,
        "value_base64": value if value is None or len(value) <= MAX_VALUE else None,
        "value_size": None if value is None else len(value),
        "headers": [(_plain(name.encode()), _plain(content)) for name, content in record.headers],
    }


def _plain(raw: bytes | None) -> str | None:
    """Text that JSON in a database can hold."""
    return None if raw is None else raw.decode("utf-8", "backslashreplace").replace("\0", "\\0")


__all__ = ["LOOK", "TYPE", "DeadLetterTopics"]
