"""A retry budget: how many repetitions the callers of one dependency may add to its load together."""

import threading
from dataclasses import dataclass
from typing import Any

from backstay.clock import SYSTEM, Clock
from backstay.resilience.config import check, not_negative

WINDOW = 10  # seconds


@dataclass(frozen=True, slots=True)
class BudgetStatistics:
    """Calls and retries of the last ten seconds, and how often another retry was refused."""

    calls: int
    retries: int
    refused_total: int


class Budget:
    """At most `ratio` retries for each first call, plus `minimum` a second, over the last ten seconds.

    Shared by all retries of one dependency, it keeps them from multiplying its load when it is down.
    """

    def __init__(self, ratio: float = 0.1, *, minimum: float = 1.0, clock: Clock = SYSTEM) -> None:
        check(
            "Budget",
            (not_negative(ratio) and ratio <= 1, f"ratio: {ratio!r} is not in [0, 1]"),
            (
                not_negative(minimum),
                f"minimum: {minimum!r} is not a number of retries a second of 0 or more",
            ),
        )
        self.ratio = ratio
        self.minimum = minimum
        self._now = clock.monotonic
        self._buckets = [[0, 0] for _ in range(WINDOW)]  # first calls and retries of each second
        self._second = int(self._now())
        self._refused = 0
        self._lock: Any = None  # an RLock: a finalizer may call in the middle of a step

    def make_thread_safe(self) -> None:
        """Be used by several threads from now on."""
        self._lock = self._lock or threading.RLock()

    def call(self) -> None:
        """Count a first call."""
        if self._lock is None:
            self._bucket()[0] += 1
        else:
            with self._lock:
                self._bucket()[0] += 1

    def allow(self) -> bool:
        """Take one retry out of the budget, if there is one left."""
        if self._lock is None:
            return self._allow()
        with self._lock:
            return self._allow()

    def _allow(self) -> bool:
        bucket = self._bucket()
        calls, retries = self._sums()
        if retries + 1 > calls * self.ratio + self.minimum * WINDOW:
            self._refused += 1
            return False
        bucket[1] += 1
        return True

    def statistics(self) -> BudgetStatistics:
        """Return a snapshot."""
        self._bucket()
        return BudgetStatistics(*self._sums(), self._refused)

    def _sums(self) -> tuple[int, int]:
        return sum(entry[0] for entry in self._buckets), sum(entry[1] for entry in self._buckets)

    def _bucket(self) -> list[int]:
        second = int(self._now())
        if second != self._second:
            for passed in range(min(second - self._second, WINDOW)):
                self._buckets[(self._second + 1 + passed) % WINDOW] = [0, 0]
            self._second = max(self._second, second)
        return self._buckets[self._second % WINDOW]

    def __repr__(self) -> str:
        return f"Budget({self.ratio:g}, minimum={self.minimum:g})"


__all__ = ["Budget", "BudgetStatistics"]
