"""Scheduled work of payments."""

from backstay.service import Job, every
from shop.payments.config import Settings
from shop.payments.service import Payments

MEASURE_INTERVAL = 5.0  # seconds


def jobs(payments: Payments, settings: Settings) -> list[Job]:
    """Return the jobs of payments."""
    return [
        every(settings.stale_interval, payments.resolve_stale, name="resolve-stale"),
        every(settings.changes_interval, payments.follow_provider, name="follow-provider"),
        every(MEASURE_INTERVAL, payments.measure, name="measure"),
    ]
