"""Durations: seconds as a number, or a `timedelta`. What is neither (a flag, a text, not a number) is no duration."""

from datetime import timedelta
from math import isfinite

Seconds = float | timedelta


def in_seconds(value: Seconds) -> float:
    """Return a duration as seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def duration(value: object) -> float | None:
    """`value` as a finite number of seconds, which may be negative; None if it isn't one."""
    if type(value) is float:  # as every request brings one
        return value if isfinite(value) else None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not isfinite(seconds):
        return None
    return float(seconds)


__all__ = ["Seconds", "duration", "in_seconds"]
