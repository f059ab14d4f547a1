"""Time in: generations that were replaced are dropped."""

from backstay.service import Job, every
from shop.analytics.service import Analytics

DROP_INTERVAL = 30.0  # seconds


def jobs(analytics: Analytics) -> list[Job]:
    """Return the jobs of analytics."""
    return [every(DROP_INTERVAL, analytics.drop_retired, name="drop-retired")]
