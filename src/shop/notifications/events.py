"""The event of a sent message."""

from datetime import datetime

from shop.contracts.notifications import NotificationSent
from shop.notifications.model import Notice


def sent(notice: Notice, *, at: datetime) -> NotificationSent:
    """A mail server took the message."""
    return NotificationSent(
        notification_id=notice.id, kind=notice.kind, customer_id=notice.customer_id, order_id=notice.order_id, at=at
    )
