"""Everything that is known of one order, in the order of time: books, events, and the accidents around them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import UUID

from backstay.db import Database, Queries
from lab.checks.kafka_log import Entry
from lab.faults.run import Struck

sql = Queries.load(__package__)
BEFORE, AFTER = 5.0, 60.0  # seconds around an order's life in which accidents are told
STORIES = {
    "orders": sql.order_story,
    "payments": sql.payment_story,
    "inventory": sql.stock_story,
    "notifications": sql.mail_story,
}


async def story(order: str, books: Mapping[str, Database], log: Sequence[Entry], struck: Sequence[Struck]) -> list[str]:
    """One line per thing that happened."""
    steps: list[tuple[float, str]] = []
    for service, statement in STORIES.items():
        rows = await books[service].fetch(statement, UUID(order))
        steps += [(row["at"].timestamp(), f"{row['what']} ({row['details']})") for row in rows]
    steps += [
        (entry.at, f"Kafka: {entry.type} {entry.id} in {entry.topic}/{entry.partition}@{entry.offset}")
        for entry in log
        if order.encode() in entry.value
    ]
    if steps:
        first, last = min(at for at, _ in steps) - BEFORE, min(at for at, _ in steps) + AFTER
        steps += [(each.began, f"*** {each.accident}") for each in struck if first <= each.began <= last]
    return [f"{_clock(at)}  {what}" for at, what in sorted(steps)]


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]
