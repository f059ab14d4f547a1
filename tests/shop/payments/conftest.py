"""Payments on a real database, with the sandbox provider and a clock that the test moves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import shop.payments
from backstay.db import Database
from backstay.outbox import Outbox
from backstay.testing import FakeClock
from shop.contracts.payments import ChargeRequest, PaymentView
from shop.kernel import Money
from shop.payments.config import Settings
from shop.payments.providers import PaymentProvider, Sandbox
from shop.payments.service import Payments

MIGRATIONS = Path(shop.payments.__file__).parent / "migrations"
PRICE = Money.of("18.00")


@dataclass
class Desk:
    """Payments, and a look behind the counter."""

    payments: Payments
    db: Database
    sandbox: Sandbox
    clock: FakeClock

    async def charge(self, order_id: UUID, method: str = "pm_card_ok", amount: Money = PRICE) -> PaymentView:
        request = ChargeRequest(order_id=order_id, customer_id=UUID(int=7), amount=amount, method=method)
        return await self.payments.charge(request)

    async def elapse(self, seconds: float) -> None:
        """Let time pass for the database: every stored time is that much longer ago. The process's clock stands."""
        passed = timedelta(seconds=seconds)
        await self.db.execute(
            "UPDATE payments SET next_check_at = next_check_at - $1::interval,"
            " calling_until = calling_until - $1::interval, saved_at = saved_at - $1::interval",
            passed,
        )

    async def published(self, order_id: UUID) -> list[str]:
        rows = await self.db.fetch("SELECT type FROM outbox WHERE aggregateid = $1 ORDER BY seq", str(order_id))
        return [row["type"] for row in rows]

    async def ledger(self) -> list[tuple[str, str]]:
        rows = await self.db.fetch("SELECT entry, amount FROM sandbox.ledger ORDER BY at, entry")
        return [(row["entry"], str(row["amount"])) for row in rows]

    async def attempts(self) -> list[tuple[str, str]]:
        rows = await self.db.fetch("SELECT step, outcome FROM attempts ORDER BY seq")
        return [(row["step"], row["outcome"]) for row in rows]

    async def status(self, order_id: UUID) -> str:
        return (await self.payments.find(order_id)).status

    def restarted(self) -> Payments:
        """Another instance on the same database."""
        return Payments(self.db, Outbox(self.db), self.sandbox, Settings(), clock=self.clock)

    def with_provider(self, provider: PaymentProvider, **settings: float) -> Payments:
        """Another instance on the same database, with a provider of the test's own."""
        return Payments(self.db, Outbox(self.db), provider, Settings(**settings), clock=self.clock)


@asynccontextmanager
async def open_desk(dsn: str) -> AsyncIterator[Desk]:
    """Payments on that empty database."""
    db = Database("payments", dsn=dsn, migrations=MIGRATIONS)
    box = Outbox(db)
    async with db, Sandbox(dsn=dsn, slow=0.05) as sandbox:
        clock = FakeClock()
        yield Desk(Payments(db, box, sandbox, Settings(), clock=clock), db, sandbox, clock)


@pytest.fixture
async def desk(database: str) -> AsyncIterator[Desk]:
    """Payments on a fresh database."""
    async with open_desk(database) as it:
        yield it


@pytest.fixture
def order_id() -> UUID:
    """The id of an order that nobody knows yet."""
    return uuid4()
