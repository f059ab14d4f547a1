"""Events that are delivered once more."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from backstay.messaging import KafkaBroker, Record
from lab.faults import catalog


class Busy:
    """A broker whose topic gets more and more."""

    def tail(self, topic: str, since: datetime) -> AsyncIterator[Record]:
        return self._records(topic, since)

    async def _records(self, topic: str, since: datetime) -> AsyncIterator[Record]:
        yield Record(topic, b"k", b"old", timestamp=since)
        while True:
            await asyncio.sleep(0)
            yield Record(topic, b"k", b"new", timestamp=datetime.now(UTC) + timedelta(minutes=1))


async def test_what_comes_meanwhile_keeps_nobody_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what was there is taken, and the end is found although the topic never falls silent."""
    monkeypatch.setattr(catalog, "NEXT", 0.05)
    broker: Any = Busy()

    found = await catalog._since(cast(KafkaBroker, broker), "orders", datetime.now(UTC) - timedelta(seconds=5))

    assert [record.value for record in found] == [b"old"]
