"""Time in: clocks are compared, keys are rotated, and what is over is removed."""

from backstay.service import Job, every
from shop.auth.service import Accounts, KeyRing, SharedClock

LOOK_AT_KEYS = 60.0  # seconds
PRUNE = 3600.0  # seconds
COMPARE_CLOCKS = 10.0  # seconds


def jobs(accounts: Accounts, keys: KeyRing, clock: SharedClock) -> list[Job]:
    """Return the jobs of auth."""
    return [
        every(LOOK_AT_KEYS, keys.rotate_if_due, name="rotate-keys"),
        every(COMPARE_CLOCKS, clock.measure, name="compare-clocks"),
        every(PRUNE, accounts.prune, name="prune"),
    ]
