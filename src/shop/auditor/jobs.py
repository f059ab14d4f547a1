"""Time in: changes are read, and what has come to rest is compared."""

from backstay.service import Job, every
from shop.auditor.config import Settings
from shop.auditor.service import Auditor

MEASURE_INTERVAL = 5.0  # seconds


def jobs(auditor: Auditor, settings: Settings) -> list[Job]:
    """Return the jobs of the auditor."""
    return [
        every(settings.read_interval, auditor.follow, name="follow"),
        every(settings.check_interval, auditor.check, name="check"),
        every(MEASURE_INTERVAL, auditor.measure, name="measure"),
    ]
