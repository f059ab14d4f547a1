"""Time in: generations that were replaced are dropped."""

from backstay.service import Job, every
from shop.analytics.service import Analytics

INTERVAL = 30.0  # seconds between two looks for replaced generations


def jobs(analytics: Analytics, *, interval: float = INTERVAL) -> list[Job]:
    """The jobs of analytics."""
    return [every(interval, analytics.drop_retired, name="drop-retired")]
