"""Scheduled work of orders."""

from backstay.service import Job, every
from shop.orders.config import Settings
from shop.orders.service import Orders

MEASURE_INTERVAL = 5.0  # seconds


def jobs(orders: Orders, settings: Settings) -> list[Job]:
    """Return the jobs of orders."""
    return [
        every(settings.reconcile_interval, orders.reconcile, name="reconcile"),
        every(settings.compensate_interval, orders.compensate, name="compensate"),
        every(MEASURE_INTERVAL, orders.measure, name="measure"),
    ]
