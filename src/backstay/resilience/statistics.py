"""The numbers of a circuit breaker."""

from dataclasses import dataclass

from backstay.resilience.events import State


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A snapshot. Rates are percent, −1.0 while there are too few calls for a verdict."""

    state: State
    failure_rate: float
    slow_call_rate: float
    buffered_calls: int
    failed_calls: int
    slow_calls: int
    slow_failed_calls: int
    not_permitted_calls: int  # as long as the window shown lives
    succeeded_total: int
    failed_total: int
    ignored_total: int
    not_permitted_total: int
    slow_succeeded_total: int
    slow_failed_total: int
    deadline_exceeded_total: int = 0  # calls that ended because their callers had no more time


__all__ = ["BreakerStatistics"]
