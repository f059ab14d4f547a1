"""Notifications on a real PostgreSQL, with deliveries to its handlers and a mailer that does as it is told."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID, uuid4

import pytest

import shop.notifications
from backstay.db import Database
from backstay.outbox import Outbox
from backstay.testing import FakeClock
from shop.contracts.orders import OrderCancelled, OrderConfirmed, OrderLine, OrderPaymentPending
from shop.contracts.payments import PaymentRefunded
from shop.contracts.users import UserRegistered, UserRegistrationRepeated
from shop.kernel import Money
from shop.notifications.handlers import register
from shop.notifications.providers import Mail
from shop.notifications.service import Notifications

MIGRATIONS = Path(shop.notifications.__file__).parent / "migrations"


@dataclass
class ToldMailer:
    """Keeps what it takes; raises what the test wants."""

    sent: list[Mail] = field(default_factory=list)
    trouble: Callable[[Mail], Exception | None] = lambda mail: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def send(self, mail: Mail) -> None:
        if (error := self.trouble(mail)) is not None:
            raise error
        self.sent.append(mail)


@dataclass(frozen=True, slots=True)
class Office:
    """The service, its handlers, its database and clock, and words for what tests do with them."""

    db: Database
    notifications: Notifications
    mailer: ToldMailer
    clock: FakeClock
    deliver: Any
    published: Any

    async def register(self, customer: UUID, email: str = "ada@example.org", **how: Any) -> None:
        await self.deliver(UserRegistered(user_id=customer, email=email, name="Ada", at=self.clock.now()), **how)

    async def register_again(self, customer: UUID) -> None:
        await self.deliver(UserRegistrationRepeated(user_id=customer, email="ada@example.org", at=self.clock.now()))

    async def confirm(self, customer: UUID, order: UUID, **how: Any) -> None:
        await self.deliver(OrderConfirmed(**self._order(customer, order)), **how)

    async def leave_pending(self, customer: UUID, order: UUID) -> None:
        await self.deliver(OrderPaymentPending(**self._order(customer, order), reason="timeout"))

    async def cancel(self, customer: UUID, order: UUID, reason: str = "out-of-stock") -> None:
        await self.deliver(OrderCancelled(**self._order(customer, order), reason=reason, was_confirmed=True))

    async def refund(self, customer: UUID, order: UUID) -> None:
        await self.deliver(
            PaymentRefunded(
                payment_id=uuid4(),
                order_id=order,
                customer_id=customer,
                amount=Money.of("36.00"),
                at=self.clock.now(),
                reason="cancelled",
            )
        )

    async def elapse(self, seconds: float) -> None:
        """Let time pass for the database: every stored time is that much longer ago. The process's clock stands."""
        await self.db.execute(
            "UPDATE notifications SET next_attempt_at = next_attempt_at - $1::interval,"
            " saved_at = saved_at - $1::interval",
            timedelta(seconds=seconds),
        )

    async def events(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = await self.published(self.db)
        return found

    async def states(self) -> dict[str, int]:
        rows = await self.db.fetch("SELECT state, count(*) AS n FROM notifications GROUP BY state")
        return {row["state"]: row["n"] for row in rows}

    def _order(self, customer: UUID, order: UUID) -> dict[str, Any]:
        line = OrderLine(
            sku="NW-001",
            name="Chai",
            quantity=2,
            unit_price=Money.of("18.00"),
            total=Money.of("36.00"),
            product_version=1,
        )
        return {
            "order_id": order,
            "customer_id": customer,
            "lines": (line,),
            "total": line.total,
            "version": 2,
            "at": self.clock.now(),
        }


@pytest.fixture
async def office(database: str, deliveries: Any, published: Any) -> AsyncIterator[Office]:
    db, clock, mailer = Database("notifications", dsn=database, migrations=MIGRATIONS), FakeClock(), ToldMailer()
    notifications = Notifications(db, Outbox(db), mailer, clock=clock)
    deliver = deliveries(db)
    register(deliver, notifications)
    async with db:
        yield Office(db, notifications, mailer, clock, deliver, published)
