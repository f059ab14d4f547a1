"""Feeds, facts, cases and findings in PostgreSQL."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from backstay.db import Database, Queries, Transaction
from backstay.db import Row as Record
from shop.auditor.model import Case, Fact, Feed, FeedState, Finding, Kind, Row, Summary, Verdict
from shop.contracts.audit import MailFact, OrderFact, PaymentFact, ProviderFact, ReservationFact
from shop.kernel import Money

sql = Queries.load(__package__)

_encode = msgspec.json.Encoder(decimal_format="string").encode
KINDS: Mapping[Feed, type[Fact]] = {
    Feed.ORDERS: OrderFact,
    Feed.PAYMENTS: PaymentFact,
    Feed.PROVIDER: ProviderFact,
    Feed.INVENTORY: ReservationFact,
    Feed.NOTIFICATIONS: MailFact,
}
"""What each feed consists of."""
_decoders: Mapping[Feed, msgspec.json.Decoder[Any]] = {feed: msgspec.json.Decoder(kind) for feed, kind in KINDS.items()}
NEVER = float("inf")


async def position(db: Database, feed: Feed) -> tuple[str | None, datetime]:
    """Return the cursor of a feed, and the time by the database's clock."""
    row = await db.fetchrow(sql.feed, feed)
    assert row is not None
    return row["cursor"], row["now"]


async def lock_feed(tx: Transaction, feed: Feed, expected: str | None) -> bool:
    """Hold a feed's cursor until the transaction ends; False if another one holds it, or has moved it."""
    row = await tx.fetchrow(sql.lock_feed, feed)
    return row is not None and row["cursor"] == expected


async def move_feed(tx: Transaction, feed: Feed, cursor: str | None, complete_at: datetime | None) -> None:
    """The changes up to a cursor are kept; `complete_at` is the time until which that is all, if it is."""
    await tx.execute(sql.move_feed, feed, cursor, complete_at)


async def fail_feed(db: Database, feed: Feed, error: str) -> None:
    """A feed couldn't be read."""
    await db.execute(sql.fail_feed, feed, error)


async def save_facts(tx: Transaction, feed: Feed, rows: Sequence[Row], *, tolerance: float) -> None:
    """Keep facts in place of the older ones, and have their subjects compared after `tolerance` seconds."""
    newest = {row.id: row for row in rows}.values()
    ids, orders, charges = [r.id for r in newest], [r.order_id for r in newest], [r.charge for r in newest]
    await tx.execute(sql.save_facts, feed, ids, orders, charges, [_encode(r.fact).decode() for r in newest])
    await tx.execute(sql.open_cases, orders, charges, tolerance)


async def claim_cases(tx: Transaction, *, limit: int) -> list[Case]:
    """Up to `limit` cases that are due, with all of their facts, locked until the transaction ends."""
    subjects = [row["subject"] for row in await tx.fetch(sql.claim_cases, limit)]
    found: dict[str, list[Record]] = defaultdict(list)
    for row in await tx.fetch(sql.facts_of, subjects):
        found[row["subject"]].append(row)
    return [_case(subject, found[subject]) for subject in subjects]


async def now(tx: Transaction) -> datetime:
    """Return the time by the database's clock, at which the transaction began."""
    at: datetime = await tx.fetchval("SELECT now()")
    return at


async def save_verdicts(tx: Transaction, verdicts: Mapping[str, Verdict]) -> tuple[list[Record], list[Record]]:
    """Record comparisons: the findings (each with whether it is new), and those that are resolved."""
    kept = {
        subject: verdict
        for subject, verdict in verdicts.items()
        if verdict.discrepancies or verdict.check_at is not None
    }
    await tx.execute(sql.close_cases, [subject for subject in verdicts if subject not in kept])
    await tx.execute(
        sql.save_cases,
        list(kept),
        [verdict.check_at for verdict in kept.values()],
        [verdict.cents for verdict in kept.values()],
        [verdict.currency for verdict in kept.values()],
        [verdict.units for verdict in kept.values()],
    )
    lines = {
        (subject, each.kind, each.detail): each for subject, verdict in kept.items() for each in verdict.discrepancies
    }
    seen = await tx.fetch(
        sql.save_findings,
        [subject for subject, _, _ in lines],
        [kind for _, kind, _ in lines],
        [each.amount.amount if each.amount else None for each in lines.values()],
        [each.amount.currency if each.amount else None for each in lines.values()],
        [each.units for each in lines.values()],
        [detail for _, _, detail in lines],
    )
    return seen, await tx.fetch(sql.resolve_findings, list(verdicts))


async def findings(
    db: Database, *, since: datetime | None, resolved: bool, before: int | None, limit: int
) -> list[Finding]:
    """Up to `limit` findings before an id, the newest first."""
    return [_finding(row) for row in await db.fetch(sql.findings, since, resolved, before, limit)]


async def summary(db: Database) -> Summary:
    """Return what is unexplained, and the progress of every feed."""
    unexplained = await db.fetch(sql.unexplained)
    return Summary(
        cents={row["currency"]: row["cents"] for row in unexplained},
        units=sum(row["units"] for row in unexplained),
        open={row["kind"]: row["number"] for row in await db.fetch(sql.open_findings)},
        waiting=await db.fetchval(sql.waiting),
        feeds=tuple(
            FeedState(feed=Feed(row["name"]), age=NEVER if row["age"] is None else row["age"], error=row["error"])
            for row in await db.fetch(sql.feeds)
        ),
    )


def _case(subject: str, rows: Sequence[Record]) -> Case:
    facts: dict[Feed, list[Any]] = defaultdict(list)
    seen: dict[Feed, datetime] = {}
    for row in rows:
        feed = Feed(row["feed"])
        facts[feed].append(_decoders[feed].decode(row["data"]))
        seen[feed] = max(seen.get(feed, row["seen_at"]), row["seen_at"])
    return Case(
        subject=subject,
        order=next(iter(facts[Feed.ORDERS]), None),
        order_seen_at=seen.get(Feed.ORDERS),
        payment=next(iter(facts[Feed.PAYMENTS]), None),
        entries=tuple(facts[Feed.PROVIDER]),
        reservation=next(iter(facts[Feed.INVENTORY]), None),
        mails=tuple(facts[Feed.NOTIFICATIONS]),
    )


def _finding(row: Record) -> Finding:
    return Finding(
        id=row["id"],
        subject=row["subject"],
        kind=Kind(row["kind"]),
        amount=None if row["amount"] is None else Money(row["amount"], row["currency"]),
        units=row["units"],
        detail=row["detail"],
        first_seen=row["first_seen"],
        last_seen=row["last_seen"],
        resolved_at=row["resolved_at"],
    )
