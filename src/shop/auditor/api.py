"""The list for attention over HTTP, for admins."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta

from backstay.service import Page, Route, decode_cursor, encode_cursor, get
from shop.auditor.model import Finding, Kind, Summary
from shop.auditor.service import Auditor
from shop.kernel import Money

PAGE = 50  # items of a page unless asked for otherwise
PAGE_LIMIT = 100

Limit = Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]
Id = Annotated[int, Meta(ge=1, le=2**62)]


class FeedView(msgspec.Struct, frozen=True, kw_only=True):
    """One service's changes: `age` is in seconds since all of them had been read, null before the first time."""

    name: str
    age: float | None
    error: str | None


class AuditView(msgspec.Struct, frozen=True, kw_only=True):
    """Amounts and units that are unexplained now. Nothing is compared while one of the feeds can't be read."""

    unexplained: list[Money]
    unexplained_units: int
    open: dict[str, int]
    waiting: int
    feeds: list[FeedView]


class FindingView(msgspec.Struct, frozen=True, kw_only=True):
    """A mismatch: `subject` is the order's id, or `charge:<key>` for a charge that no payment names."""

    id: int
    subject: str
    kind: Kind
    amount: Money | None
    units: int
    detail: str
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None


def routes(auditor: Auditor) -> list[Route]:
    """Return the routes of the auditor, below the API's prefix."""

    @get("/audit", scope="audit:read")
    async def summary() -> AuditView:
        """Read what is unexplained in all, and how far every service has been read."""
        return _summary(await auditor.summary())

    @get("/audit/findings", scope="audit:read")
    async def findings(
        since: datetime | None = None, resolved: bool = False, limit: Limit = PAGE, cursor: str | None = None
    ) -> Page[FindingView]:
        """List what doesn't add up, the newest first; with `resolved` also what adds up again."""
        before = decode_cursor(cursor, Id)
        found = await auditor.findings(
            since=since, resolved=resolved, before=before[0] if before else None, limit=limit + 1
        )
        following = encode_cursor(found[limit - 1].id) if len(found) > limit else None
        return Page([_finding(finding) for finding in found[:limit]], following)

    return [summary, findings]


def _summary(found: Summary) -> AuditView:
    return AuditView(
        unexplained=[Money(Decimal(cents) / 100, currency) for currency, cents in sorted(found.cents.items())],
        unexplained_units=found.units,
        open=found.open,
        waiting=found.waiting,
        feeds=[
            FeedView(name=state.feed, age=state.age if state.age != float("inf") else None, error=state.error)
            for state in found.feeds
        ],
    )


def _finding(found: Finding) -> FindingView:
    return FindingView(
        id=found.id,
        subject=found.subject,
        kind=found.kind,
        amount=found.amount,
        units=found.units,
        detail=found.detail,
        first_seen=found.first_seen,
        last_seen=found.last_seen,
        resolved_at=found.resolved_at,
    )
