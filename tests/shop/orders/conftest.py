"""Orders on a real database, with a payments service that says what the test wants."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

import shop.orders
from backstay.db import Database, Transaction
from backstay.outbox import Outbox
from backstay.service import Answer, IdempotencyKey, idempotency
from backstay.testing import FakeClock
from shop.contracts.inventory import InventoryUpdated
from shop.contracts.products import ProductCreated
from shop.kernel import Money
from shop.orders.config import Settings
from shop.orders.model import Compensation, NewLine, NewOrder, Order, Outcome, Result
from shop.orders.service import Orders

MIGRATIONS = Path(shop.orders.__file__).parent / "migrations"
CUSTOMER = UUID(int=7)
AT = datetime(2026, 1, 1, tzinfo=UTC)
CAPTURED = Outcome(result=Result.CAPTURED, payment_id=UUID(int=99))


@dataclass
class FakePayments:
    """Answers with what the test put there; keeps a list of what it was asked."""

    charged: Outcome = CAPTURED
    found: Outcome = field(default_factory=lambda: Outcome(result=Result.UNKNOWN))
    undone: Outcome = field(default_factory=lambda: Outcome(result=Result.VOIDED))
    asked: list[str] = field(default_factory=list)
    meanwhile: Callable[[UUID], Awaitable[object]] | None = None

    async def charge(self, order: Order) -> Outcome:
        return await self._asked("charge", order.id, self.charged)

    async def find(self, order_id: UUID) -> Outcome:
        return await self._asked("find", order_id, self.found)

    async def undo(self, compensation: Compensation) -> Outcome:
        return await self._asked(compensation.kind, compensation.order_id, self.undone)

    async def _asked(self, what: str, order_id: UUID, outcome: Outcome) -> Outcome:
        self.asked.append(what)
        if self.meanwhile is not None:
            then, self.meanwhile = self.meanwhile, None
            await then(order_id)
        return outcome


@dataclass
class Counter:
    """Orders, and a look behind the counter."""

    orders: Orders
    payments: FakePayments
    db: Database
    clock: FakeClock

    async def checkout(
        self, *lines: tuple[str, int], key: str = "", customer: UUID = CUSTOMER, **more: Any
    ) -> Answer[Any]:
        wanted = NewOrder(
            lines=tuple(NewLine(sku=sku, quantity=quantity) for sku, quantity in lines or (("P1", 2),)),
            **{"payment_method": "pm_card_ok", **more},
        )
        claim = IdempotencyKey(str(customer), "POST /orders", key or str(uuid4()))
        return await self.orders.checkout(customer, wanted, claim)

    async def handle(self, use_case: Callable[..., Awaitable[object]], *args: Any) -> None:
        """A use case that events reach, in a transaction as the consumer opens it."""
        async with self.db.transaction() as tx:
            await use_case(tx, *args)

    async def settle(self, order_id: UUID, outcome: Outcome) -> None:
        async def settle(tx: Transaction) -> None:
            await self.orders.settle(tx, order_id, outcome, by="test")

        await self.handle(settle)

    async def stock(self, sku: str, available: int, version: int = 1) -> None:
        event = InventoryUpdated(sku=sku, on_hand=available, available=available, version=version, at=AT)
        await self.handle(self.orders.stock_told, [event], [uuid4()])

    async def elapse(self, seconds: float) -> None:
        """Let time pass for the database: every stored time is that much longer ago. The process's clock stands."""
        passed = timedelta(seconds=seconds)
        for table, columns in (("orders", ("next_check_at", "saved_at")), ("compensations", ("due_at", "created_at"))):
            earlier = ", ".join(f"{column} = {column} - $1::interval" for column in columns)
            await self.db.execute(f"UPDATE {table} SET {earlier}", passed)

    async def status(self, order_id: UUID) -> str:
        return str(await self.db.fetchval("SELECT status FROM orders WHERE id = $1", order_id))

    async def published(self, order_id: UUID) -> list[str]:
        rows = await self.db.fetch(
            "SELECT type, aggregateversion AS v FROM outbox WHERE aggregateid = $1 ORDER BY seq", str(order_id)
        )
        assert [row["v"] for row in rows] == list(range(1, len(rows) + 1)), "versions have no gap"
        return [row["type"].removeprefix("order.") for row in rows]

    async def compensations(self, order_id: UUID) -> dict[str, str | None]:
        rows = await self.db.fetch("SELECT kind, outcome FROM compensations WHERE order_id = $1", order_id)
        return {row["kind"]: row["outcome"] for row in rows}

    async def what(self, order_id: UUID) -> list[str]:
        rows = await self.db.fetch("SELECT what FROM timeline WHERE order_id = $1 ORDER BY seq", order_id)
        return [row["what"] for row in rows]

    async def only_order(self) -> UUID:
        rows = await self.db.fetch("SELECT id FROM orders")
        assert len(rows) == 1
        return UUID(str(rows[0]["id"]))


def read(answer: Answer[Any]) -> dict[str, Any]:
    """The body of an answer, as JSON says it."""
    decoded: dict[str, Any] = msgspec.json.decode(answer.content())
    return decoded


@asynccontextmanager
async def open_counter(dsn: str, **settings: Any) -> AsyncIterator[Counter]:
    """Orders on that empty database, with a small catalog."""
    db = Database("orders", dsn=dsn, migrations=MIGRATIONS)
    box = Outbox(db)
    db.requires(idempotency.COMPONENT)
    clock, payments = FakeClock(datetime.now(UTC)), FakePayments()
    async with db:
        counter = Counter(Orders(db, box, payments, Settings(**settings), clock=clock), payments, db, clock)
        for sku, price in (("P1", "18.00"), ("P2", "19.50")):
            await counter.handle(counter.orders.product_changed, product(sku, price))
        yield counter


def product(sku: str, price: str, *, version: int = 1, available: bool = True) -> ProductCreated:
    return ProductCreated(
        sku=sku,
        name=f"Product {sku}",
        category="Food",
        price=Money.of(price),
        available=available,
        version=version,
        at=AT,
    )


@pytest.fixture
async def counter(database: str) -> AsyncIterator[Counter]:
    """Orders on a fresh database."""
    async with open_counter(database) as it:
        yield it


@pytest.fixture
def counter_with(database: str) -> Callable[..., Any]:
    """`async with counter_with(checkouts=1) as counter:` is a counter with settings of its own."""
    return lambda **settings: open_counter(database, **settings)
