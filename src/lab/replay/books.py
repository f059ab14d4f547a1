"""Every service's books, read side by side: databases where they hold more than the API shows, else the API."""

import json
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from backstay.db import Database, Queries
from backstay.dev.mail_catcher import kept
from lab.client.user import Shopper

sql = Queries.load(__package__)


@dataclass(frozen=True, slots=True)
class OrderEntry:
    """An order in orders' database; lines are (sku, quantity, unit price)."""

    customer_id: str
    status: str
    total: Decimal
    lines: tuple[tuple[str, int, Decimal], ...]


@dataclass(frozen=True, slots=True)
class StockEntry:
    """A product's level in inventory's database, and what its ledger adds up to."""

    on_hand: int
    reserved: int
    ledger_on_hand: int
    ledger_reserved: int
    gapless: bool


@dataclass(frozen=True, slots=True)
class PaymentEntry:
    """An order's payment, with what the provider's own ledger took and gave back."""

    status: str
    captured: Decimal
    refunded: Decimal
    captures: int


@dataclass(frozen=True, slots=True)
class MailEntry:
    """A message in notifications' database."""

    id: str
    kind: str
    state: str
    order_id: str | None
    customer_id: str


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of analytics; units and money by product, orders by customer id."""

    confirmed: int
    completed: int
    net: Decimal
    units: Mapping[str, int]
    money: Mapping[str, Decimal]
    customers: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entries:
    """All books at one moment, as far as these orders and customers are concerned."""

    orders: Mapping[str, OrderEntry] = field(default_factory=dict)
    reservations: Mapping[str, str] = field(default_factory=dict)
    reserved: Mapping[tuple[str, str], int] = field(default_factory=dict)
    stock: Mapping[str, StockEntry] = field(default_factory=dict)
    payments: Mapping[str, PaymentEntry] = field(default_factory=dict)
    mails: tuple[MailEntry, ...] = ()
    delivered: frozenset[str] | None = None
    """Message-IDs in the local mailbox; None when mails go elsewhere."""
    dead_letters: Mapping[str, int] = field(default_factory=dict)


class Books:
    """Connections to every service's database; an async context manager. Only reads."""

    def __init__(self, databases: Mapping[str, str]) -> None:
        self._open = AsyncExitStack()
        self._databases = {
            name: Database(f"replay-{name}", dsn=dsn, max_size=2, statement_timeout=60.0)
            for name, dsn in databases.items()
        }

    async def __aenter__(self) -> Self:
        for database in self._databases.values():
            await self._open.enter_async_context(database)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def waiting(self) -> dict[str, int]:
        """Return the unfinished work by name; empty when there is none."""
        orders, inventory = self._databases["orders"], self._databases["inventory"]
        unequal = await orders.fetchval(sql.confirmed) - await inventory.fetchval(sql.holding)
        counts = {
            "orders to reserve or release": abs(unequal),
            "orders to settle": await orders.fetchval(sql.open_orders),
            "payments to undo": await orders.fetchval(sql.open_compensations),
            "events to publish": sum([await self._count(name, "outbox", sql.unpublished) for name in self._databases]),
            "mails to send": await self._databases["notifications"].fetchval(sql.unsent),
        }
        return {name: count for name, count in counts.items() if count}

    async def entries(self, orders: list[str], customers: list[str], mailbox: Path | None) -> Entries:
        """Everything about these orders and customers."""
        ids = [UUID(order) for order in orders]
        return Entries(
            orders={str(row["id"]): _order(row) for row in await self._rows("orders", sql.orders, ids)},
            reservations={
                str(row["order_id"]): row["state"] for row in await self._rows("inventory", sql.reservations, ids)
            },
            reserved={
                (str(row["order_id"]), row["sku"]): int(row["units"])
                for row in await self._rows("inventory", sql.reserved, ids)
            },
            stock={row["sku"]: _stock(row) for row in await self._rows("inventory", sql.stock)},
            payments={str(row["order_id"]): _payment(row) for row in await self._rows("payments", sql.payments, ids)},
            mails=tuple(
                _mail(row)
                for row in await self._rows("notifications", sql.mails, ids, [UUID(one) for one in customers])
            ),
            delivered=frozenset(_row_id(mail.message_id) for mail in kept(mailbox)) if mailbox else None,
            dead_letters={name: await self._count(name, "dead_letters", sql.dead_letters) for name in self._databases},
        )

    async def _rows(self, database: str, statement: str, *args: object) -> list[Any]:
        return list(await self._databases[database].fetch(statement, *args))

    async def _count(self, database: str, table: str, statement: str) -> int:
        """Rows of a platform table; a service that has no such table has none."""
        there = await self._databases[database].fetchval("SELECT to_regclass($1) IS NOT NULL", table)
        return int(await self._databases[database].fetchval(statement)) if there else 0


async def figures(admin: Shopper) -> Figures:
    """Return the figures that analytics shows to an admin."""
    revenue = (await admin.get("/api/v1/analytics/revenue"))["totals"]
    funnel = await admin.get("/api/v1/analytics/funnel")
    products = await admin.every("/api/v1/analytics/top-products")
    customers = await admin.every("/api/v1/analytics/customers")
    return Figures(
        confirmed=funnel["confirmed"],
        completed=funnel["completed"],
        net=sum((Decimal(each["net"]["amount"]) for each in revenue), Decimal("0.00")),
        units={each["sku"]: each["units"] for each in products},
        money={each["sku"]: Decimal(each["revenue"]["amount"]) for each in products},
        customers={each["customer_id"]: each["confirmed"] for each in customers},
    )


def _order(row: Any) -> OrderEntry:
    lines = json.loads(row["lines"])
    return OrderEntry(
        customer_id=str(row["customer_id"]),
        status=row["status"],
        total=row["total"],
        lines=tuple((line["sku"], line["quantity"], Decimal(line["unit_price"]["amount"])) for line in lines),
    )


def _stock(row: Any) -> StockEntry:
    return StockEntry(
        on_hand=row["on_hand"],
        reserved=row["reserved"],
        ledger_on_hand=int(row["ledger_on_hand"]),
        ledger_reserved=int(row["ledger_reserved"]),
        gapless=row["version"] == row["lines"],
    )


def _payment(row: Any) -> PaymentEntry:
    return PaymentEntry(row["status"], row["captured"], row["refunded"], row["captures"])


def _mail(row: Any) -> MailEntry:
    order = str(row["order_id"]) if row["order_id"] else None
    return MailEntry(str(row["id"]), row["kind"], row["state"], order, str(row["customer_id"]))


def _row_id(message_id: str) -> str:
    """A Message-ID is the notification's id and our domain."""
    return message_id.partition("@")[0]
