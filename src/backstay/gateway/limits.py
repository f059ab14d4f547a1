"""Token buckets, one per caller, each kept as a single number (GCRA), in bounded memory.

A bucket of `burst` tokens that refills with `rate` tokens a second is the same as a schedule on which each token takes
1/rate seconds: all that has to be kept is when the schedule is free again. A bucket that is full again is forgotten.
"""

from dataclasses import dataclass
from math import ceil

from backstay.metrics import Count

MAX_KEYS = 100_000


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a caller may go on."""

    allowed: bool
    remaining: int
    """Whole tokens left."""
    retry_after: int
    """Whole seconds until there are enough tokens; 0 if allowed."""


@dataclass(frozen=True, slots=True)
class LimiterStatistics:
    """A snapshot."""

    keys: int
    allowed: Count
    refused: Count


class TokenBuckets:
    """`rate` tokens a second up to `burst`, `cost` of them per request; `take` is given the time in seconds."""

    def __init__(self, rate: float, burst: float, cost: float = 1.0, *, max_keys: int = MAX_KEYS) -> None:
        self.rate = rate
        self.burst = burst
        self.cost = cost
        self._max_keys = max_keys
        self._free_at: dict[str, float] = {}
        self._allowed = 0
        self._refused = 0

    def __repr__(self) -> str:
        return f"TokenBuckets(rate={self.rate:g}, burst={self.burst:g}, cost={self.cost:g})"

    def take(self, key: str, now: float) -> Decision:
        """Take tokens for a request of `key`, if there are enough."""
        free_at = max(self._free_at.get(key, now), now)
        tokens = self.burst - (free_at - now) * self.rate
        if tokens + 1e-9 < self.cost:
            self._refused += 1
            return Decision(False, int(tokens), max(1, ceil((self.cost - tokens) / self.rate - 1e-9)))
        self._allowed += 1
        if len(self._free_at) >= self._max_keys and key not in self._free_at:
            self._forget(now)
        self._free_at[key] = free_at + self.cost / self.rate
        return Decision(True, int(tokens - self.cost + 1e-9), 0)

    def exhausted(self, key: str, now: float) -> bool:
        """Whether the next request of `key` would be refused; takes nothing."""
        free_at = self._free_at.get(key)
        return free_at is not None and self.burst - (free_at - now) * self.rate + 1e-9 < self.cost

    def statistics(self) -> LimiterStatistics:
        """How many callers are known, and how many requests went on or didn't."""
        return LimiterStatistics(len(self._free_at), self._allowed, self._refused)

    def _forget(self, now: float) -> None:
        """Drop full buckets; if all are in use, the oldest tenth, whose callers then start afresh."""
        self._free_at = {key: free_at for key, free_at in self._free_at.items() if free_at > now}
        if len(self._free_at) >= self._max_keys:
            for key in list(self._free_at)[: self._max_keys // 10 + 1]:
                del self._free_at[key]
