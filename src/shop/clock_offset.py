"""A wrong clock for one process: wall time is off by so much, durations are not, as after a bad synchronisation."""

import time
from datetime import UTC, datetime, timedelta

from backstay.clock import SystemClock

VARIABLE = "CLOCK_OFFSET"
"""Seconds, in the environment of a process that `shop run` starts."""


def shift(seconds: float) -> None:
    """From now on this process lives `seconds` in the future (or in the past)."""
    real, offset = time.time, timedelta(seconds=seconds)

    def now(_self: SystemClock) -> datetime:
        return datetime.now(UTC) + offset

    SystemClock.now = now  # type: ignore[assignment, method-assign]  # everybody asks this clock
    time.time = lambda: real() + seconds
