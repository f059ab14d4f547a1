"""Time in: messages whose turn has come are sent."""

from backstay.service import Job, every
from shop.notifications.service import Notifications

INTERVAL = 0.25  # seconds between two looks for messages that are due


def jobs(notifications: Notifications, *, interval: float = INTERVAL) -> list[Job]:
    """The jobs of notifications."""
    return [every(interval, notifications.send_due, name="send-mail")]
