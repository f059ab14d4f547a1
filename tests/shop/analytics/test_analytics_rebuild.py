"""A rebuild of analytics on a real broker: a new group reads from the beginning, then takes over."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from backstay.auth import StaticKeys, TokenVerifier
from backstay.db import Database
from backstay.ids import uuid7
from backstay.messaging import Envelope, Event, KafkaBroker, event_spec
from backstay.testing import eventually
from backstay.testing.issuer import TokenIssuer
from shop.analytics.config import Settings
from shop.analytics.main import build
from shop.analytics.service import Analytics
from shop.contracts.orders import OrderConfirmed, OrderLine
from shop.kernel import Money
from shop.topology import TOPICS

AT = datetime(2026, 1, 1, tzinfo=UTC)


def confirmed(customer: UUID) -> OrderConfirmed:
    price = Money.of("18.00")
    line = OrderLine(sku="NW-001", name="Chai", quantity=1, unit_price=price, total=price, product_version=1)
    return OrderConfirmed(
        order_id=uuid4(), customer_id=customer, lines=(line,), total=line.total, version=2, at=AT, payment_id=uuid4()
    )


async def publish(broker: KafkaBroker, events: list[Event]) -> None:
    specs = [event_spec(event) for event in events]
    records = [
        Envelope.record_for(
            topic=spec.topic,
            key=spec.key_of(event),
            id=uuid7(),
            type=spec.type,
            source="/test",
            data=msgspec.json.encode(event),
        )
        for event, spec in zip(events, specs, strict=True)
    ]
    async with broker.producer() as producer:
        assert not any(await producer.publish(records))


@pytest.mark.kafka
async def test_a_rebuild_reads_a_real_topic_from_its_beginning(kafka: Any, database: str):
    """Every order is counted once before and after the swap, and those that come after it too."""
    customer, issuer = uuid4(), TokenIssuer(audience="shop")
    broker = KafkaBroker(kafka.bootstrap, flavor=kafka.flavor)
    await broker.create_topics(TOPICS)
    await publish(broker, [confirmed(customer) for _ in range(40)])
    service = build(Settings(database_url=database, kafka=kafka.bootstrap, kafka_flavor=kafka.flavor))
    service.verifier = TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks))
    async with service.running(), Database("reader", dsn=database) as db:
        analytics = Analytics(db)

        async def counted(wanted: int) -> bool:
            found = await analytics.customers(after=(customer, ""), limit=1)
            return [(sales.customer_id, sales.confirmed) for sales in found] == [(customer, wanted)]

        await eventually(lambda: counted(40), timeout=40)
        opened = await analytics.rebuild()
        await eventually(lambda: _is_current(analytics, opened.generation), timeout=40)
        assert await counted(40)
        await publish(broker, [confirmed(customer) for _ in range(2)])
        await eventually(lambda: counted(42), timeout=40)
    await broker.aclose()


async def _is_current(analytics: Analytics, generation: int) -> bool:
    newest = (await analytics.generations())[0]
    return newest.generation == generation and newest.swapped_at is not None
