"""What time asks of payments."""

from backstay.service import Job, every
from shop.payments.service import Payments


def jobs(payments: Payments, *, stale_interval: float) -> list[Job]:
    """The jobs of payments."""
    return [every(stale_interval, payments.resolve_stale, name="resolve-stale")]
