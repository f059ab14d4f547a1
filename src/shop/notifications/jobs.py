"""Time in: messages whose turn has come are sent."""

from backstay.service import Job, every
from shop.notifications.config import Settings
from shop.notifications.service import Notifications

MEASURE_INTERVAL = 5.0  # seconds


def jobs(notifications: Notifications, settings: Settings) -> list[Job]:
    """Return the jobs of notifications."""
    return [
        every(settings.send_interval, notifications.send_due, name="send-mail"),
        every(MEASURE_INTERVAL, notifications.measure, name="measure"),
    ]
