"""The auditor on a real database, with services whose changes the test writes."""

from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

import shop.auditor
from backstay.db import Database
from backstay.service import Feed as Page
from shop.auditor.config import Settings
from shop.auditor.model import Fact, Feed, Finding
from shop.auditor.service import Auditor
from shop.contracts.audit import MailFact, OrderFact, PaymentFact, ProviderFact, ReservationFact
from shop.kernel import Money

MIGRATIONS = Path(shop.auditor.__file__).parent / "migrations"
TOTAL = Money.of("18.00")
AT = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class ToldChanges:
    """Services whose feeds are lists; those in `away` don't answer."""

    feeds: dict[Feed, list[Fact]] = field(default_factory=lambda: defaultdict(list))
    away: set[Feed] = field(default_factory=set)

    async def read(self, feed: Feed, since: str | None, *, limit: int) -> Page[Fact]:
        if feed in self.away:
            raise ConnectionError("refused")
        start = int(since or 0)
        items = self.feeds[feed][start : start + limit]
        end = start + len(items)
        return Page(items, str(end) if end else None, end < len(self.feeds[feed]))


@dataclass
class Bench:
    """The auditor, and words for what tests do with it."""

    auditor: Auditor
    db: Database
    changes: ToldChanges

    def another(self) -> Auditor:
        """Another instance on the same database."""
        return Auditor(self.db, self.changes, Settings(read_batch=3, check_batch=2))

    def sell(self, order_id: UUID | None = None, *, charged: bool = True) -> tuple[UUID, UUID]:
        """A confirmed order in every service; its id and that of its payment."""
        order_id, payment_id = order_id or uuid4(), uuid4()
        feeds = self.changes.feeds
        self.order(order_id, "confirmed")
        feeds[Feed.PAYMENTS].append(
            PaymentFact(order_id=order_id, payment_id=payment_id, status="captured", amount=TOTAL)
        )
        if charged:
            self.ledger(payment_id, "captured")
        feeds[Feed.INVENTORY].append(
            ReservationFact(order_id=order_id, state="reserved", reserved={"P1": 2}, released={})
        )
        feeds[Feed.NOTIFICATIONS].append(MailFact(id=uuid4(), order_id=order_id, kind="confirmed", state="sent"))
        return order_id, payment_id

    def order(self, order_id: UUID, status: str, reason: str | None = None) -> None:
        self.changes.feeds[Feed.ORDERS].append(
            OrderFact(order_id=order_id, status=status, total=TOTAL, units={"P1": 2}, reason=reason)  # type: ignore[arg-type]
        )

    def ledger(self, payment_id: UUID, entry: str) -> None:
        self.changes.feeds[Feed.PROVIDER].append(
            ProviderFact(entry=entry, id=f"{entry}-{payment_id}", charge=str(payment_id), amount=TOTAL, at=AT)
        )

    async def elapse(self, seconds: float) -> None:
        """Let time pass for the database: every stored time is that much longer ago."""
        passed = timedelta(seconds=seconds)
        await self.db.execute("UPDATE cases SET check_at = check_at - $1::interval", passed)
        await self.db.execute("UPDATE facts SET seen_at = seen_at - $1::interval", passed)
        await self.db.execute(
            "UPDATE feeds SET complete_at = complete_at - $1::interval WHERE isfinite(complete_at)", passed
        )

    async def run(self) -> None:
        """Read everything, let the tolerance pass, read again, compare."""
        await self.auditor.follow()
        await self.elapse(61)
        await self.auditor.follow()
        await self.auditor.check()

    async def open(self) -> dict[str, set[str]]:
        """Kinds of open findings by subject."""
        found: dict[str, set[str]] = defaultdict(set)
        for finding in await self.list():
            found[finding.subject].add(finding.kind)
        return dict(found)

    async def list(self, *, resolved: bool = False) -> list[Finding]:
        return await self.auditor.findings(since=None, resolved=resolved, before=None, limit=100)


@pytest.fixture
async def bench(database: str) -> AsyncIterator[Bench]:
    db, changes = Database("auditor", dsn=database, migrations=MIGRATIONS), ToldChanges()
    async with db:
        yield Bench(Auditor(db, changes, Settings(read_batch=3, check_batch=2)), db, changes)
