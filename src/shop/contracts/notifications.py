"""Events of notifications."""

from datetime import datetime
from uuid import UUID

from backstay.messaging import Event


class NotificationSent(Event, topic="notifications", type="notification.sent", key="notification_id"):
    """A mail server accepted a message for delivery."""

    notification_id: UUID
    kind: str
    customer_id: UUID
    order_id: UUID | None = None
    at: datetime
