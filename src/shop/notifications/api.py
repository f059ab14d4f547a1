"""HTTP in: customers see what was sent to them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from backstay.service import Feed, Forbidden, Page, Principal, Route, decode_cursor, encode_cursor, get
from shop.contracts import audit as audited
from shop.notifications.model import Kind, Notification, State
from shop.notifications.service import Notifications

PAGE = 50  # items of a page unless asked for otherwise
PAGE_LIMIT = 100

Limit = Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]


class NotificationView(msgspec.Struct, frozen=True, kw_only=True):
    """A message to a customer."""

    id: UUID
    kind: Kind
    state: State
    order_id: UUID | None
    created_at: datetime
    sent_at: datetime | None


def routes(notifications: Notifications) -> list[Route]:
    """Return the routes of notifications, below the API's prefix."""

    @get("/notifications", scope="notifications:read")
    async def list_notifications(
        who: Principal, order_id: UUID | None = None, limit: Limit = PAGE, cursor: str | None = None
    ) -> Page[NotificationView]:
        """List the caller's messages, all or those about one order, the newest first."""
        before = decode_cursor(cursor, UUID)
        found = await notifications.page(
            _customer(who), order_id=order_id, before=before[0] if before else None, limit=limit + 1
        )
        following = encode_cursor(found[limit - 1].id) if len(found) > limit else None
        return Page([_view(notification) for notification in found[:limit]], following)

    return [list_notifications]


def internal(notifications: Notifications) -> list[Route]:
    """Routes for other services of the shop; the gateway leads to none of them."""

    @get("/internal/audit", scope="audit:read", internal=True, hidden=True)
    async def audit(since: str | None = None, limit: audited.Limit = audited.LIMIT) -> Feed[audited.MailFact]:
        """Messages about orders in the order in which they changed last, for the auditor."""
        after = decode_cursor(since, audited.Change, UUID, name="since") or (0, UUID(int=0))
        found = await notifications.audit(after, limit=limit + 1)
        facts = [
            (place, audited.MailFact(id=mail.id, order_id=mail.order_id, kind=mail.kind, state=mail.state))
            for place, mail in found
            if mail.order_id is not None
        ]
        return Feed.of(facts, since=since, limit=limit)

    return [audit]


def _customer(who: Principal) -> UUID:
    try:
        return UUID(who.id)
    except ValueError:
        raise Forbidden("only a customer has messages") from None


def _view(notification: Notification) -> NotificationView:
    return NotificationView(
        id=notification.id,
        kind=notification.kind,
        state=notification.state,
        order_id=notification.order_id,
        created_at=notification.created_at,
        sent_at=notification.sent_at,
    )
