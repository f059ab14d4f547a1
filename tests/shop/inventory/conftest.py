"""Inventory on a real PostgreSQL, with deliveries to its handlers."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

import shop.inventory
from backstay.db import Database
from backstay.outbox import Outbox
from shop.contracts.orders import OrderCancelled, OrderConfirmed, OrderLine
from shop.inventory.handlers import register
from shop.inventory.service import Stock
from shop.kernel import Money

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CUSTOMER = uuid4()
MIGRATIONS = Path(shop.inventory.__file__).parent / "migrations"


class Order:
    """Events of an order, by its id and what it wants."""

    @staticmethod
    def confirmed(order_id: UUID, wanted: Mapping[str, int]) -> OrderConfirmed:
        return OrderConfirmed(**_order(order_id, wanted))

    @staticmethod
    def cancelled(order_id: UUID, wanted: Mapping[str, int]) -> OrderCancelled:
        return OrderCancelled(**_order(order_id, wanted), reason="customer", was_confirmed=True)


@dataclass(frozen=True, slots=True)
class Warehouse:
    """The service, its handlers, its database, and words for what tests do with them."""

    db: Database
    stock: Stock
    deliver: Any
    published: Any

    async def fill(self, levels: Mapping[str, int], *, reorder_level: int | None = None) -> None:
        for sku, on_hand in levels.items():
            await self.stock.count(sku, on_hand=on_hand, reorder_level=reorder_level)

    async def confirm(self, order_id: UUID, wanted: Mapping[str, int]) -> None:
        await self.deliver(Order.confirmed(order_id, wanted))

    async def cancel(self, order_id: UUID, wanted: Mapping[str, int]) -> None:
        await self.deliver(Order.cancelled(order_id, wanted))

    async def available(self) -> dict[str, int]:
        return {level.sku: level.available for level in await self.stock.page(after=None, limit=1000)}

    async def state(self, order_id: UUID) -> str | None:
        found: str | None = await self.db.fetchval("SELECT state FROM reservations WHERE order_id = $1", order_id)
        return found

    async def events(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = await self.published(self.db)
        return found

    async def adds_up(self) -> bool:
        """Whether each product's ledger leads to its stock without a gap, and reservations to what is reserved."""
        wrong = await self.db.fetch(
            """
            SELECT s.sku FROM stock s LEFT JOIN ledger l USING (sku)
            GROUP BY s.sku
            HAVING s.on_hand <> COALESCE(sum(l.on_hand), 0) OR s.reserved <> COALESCE(sum(l.reserved), 0)
                OR s.version <> count(l.sku) OR s.version <> COALESCE(max(l.version), 0)
            """
        )
        return not wrong


def _order(order_id: UUID, wanted: Mapping[str, int]) -> dict[str, Any]:
    price = Money.of("1.00")
    lines = tuple(
        OrderLine(sku=sku, name=sku, quantity=units, unit_price=price, total=price * units, product_version=1)
        for sku, units in wanted.items()
    )
    total = Money.sum(line.total for line in lines)
    return {
        "order_id": order_id,
        "customer_id": CUSTOMER,
        "lines": lines,
        "total": total,
        "version": 2,
        "at": NOW,
    }


@pytest.fixture
async def warehouse(database: str, deliveries: Any, published: Any) -> AsyncIterator[Warehouse]:
    db = Database("inventory", dsn=database, migrations=MIGRATIONS)
    stock = Stock(db, Outbox(db))
    deliver = deliveries(db)
    register(deliver, stock)
    async with db:
        yield Warehouse(db, stock, deliver, published)


@pytest.fixture
def order() -> type[Order]:
    """Makes events of orders."""
    return Order
