"""Analytics on a real PostgreSQL, with deliveries to the handlers of its first generation."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

import shop.analytics
from backstay.db import Database
from backstay.messaging import Event
from backstay.testing import FakeClock
from shop.analytics.handlers import Readers, register
from shop.analytics.service import Analytics
from shop.contracts.inventory import InventoryRejected, InventoryReserved
from shop.contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderLine, OrderPaymentPending
from shop.contracts.payments import PaymentCaptured, PaymentRefunded
from shop.kernel import Money

MIGRATIONS = Path(shop.analytics.__file__).parent / "migrations"
NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)
PRICES = {"A": Money.of("1.50"), "B": Money.of("10.00"), "C": Money.of("0.01")}


@dataclass(frozen=True, slots=True)
class Story:
    """The events that one order leaves behind."""

    order_id: UUID
    customer_id: UUID
    wanted: dict[str, int]
    day: int = 0

    @property
    def lines(self) -> tuple[OrderLine, ...]:
        return tuple(
            OrderLine(
                sku=sku,
                name=f"Product {sku}",
                quantity=units,
                unit_price=PRICES[sku],
                total=PRICES[sku] * units,
                product_version=1,
            )
            for sku, units in self.wanted.items()
        )

    @property
    def total(self) -> Money:
        return Money.sum(line.total for line in self.lines)

    def event(self, name: str) -> Event:
        at = NOON + timedelta(days=self.day)
        order: dict[str, Any] = {
            "order_id": self.order_id,
            "customer_id": self.customer_id,
            "lines": self.lines,
            "total": self.total,
            "version": 1,
            "at": at,
        }
        paid: dict[str, Any] = {
            "payment_id": self.order_id,
            "order_id": self.order_id,
            "customer_id": self.customer_id,
            "amount": self.total,
            "at": at,
        }
        match name:
            case "created":
                return OrderCreated(**order, payment_method="pm_card_ok")
            case "pending":
                return OrderPaymentPending(**order, reason="timeout")
            case "confirmed":
                return OrderConfirmed(**order)
            case "cancelled":
                return OrderCancelled(**{**order, "at": at + timedelta(days=1)}, reason="customer")
            case "reserved":
                return InventoryReserved(order_id=self.order_id, customer_id=self.customer_id, lines=(), at=at)
            case "rejected":
                return InventoryRejected(order_id=self.order_id, customer_id=self.customer_id, missing=(), at=at)
            case "captured":
                return PaymentCaptured(**paid)
            case _:
                return PaymentRefunded(**{**paid, "at": at + timedelta(days=1)}, reason="cancelled")


@dataclass(frozen=True, slots=True)
class Desk:
    """The service, its handlers, its readers (not entered) and its database."""

    db: Database
    analytics: Analytics
    readers: Readers
    deliver: Any
    clock: FakeClock

    async def tell(self, story: Story, *names: str) -> None:
        for name in names:
            await self.deliver(story.event(name))


@pytest.fixture
async def desk(database: str, deliveries: Any) -> AsyncIterator[Desk]:
    db, clock = Database("analytics", dsn=database, migrations=MIGRATIONS), FakeClock(NOON)
    analytics = Analytics(db, clock=clock)
    readers = Readers(db, analytics, interval=0.05)
    deliver = deliveries(db)
    register(deliver, analytics, generation=1)
    async with db:
        yield Desk(db, analytics, readers, deliver, clock)


@pytest.fixture
def story() -> type[Story]:
    """Make one with order id, customer id and lines."""
    return Story
