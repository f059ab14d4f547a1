"""Token buckets, one per caller, each kept as a single number (GCRA), in bounded memory.

A bucket of `burst` tokens that refills with `rate` tokens a second is the same as a schedule on which each token takes
1/rate seconds: all that has to be kept is when the schedule is free again. A bucket that is full again is forgotten.

Requests that are refused in a row are told one place of that schedule after the other: if all were told the same
second, they would come back in it together, and all but a few for nothing.
"""

from dataclasses import dataclass
from math import ceil

from backstay.metrics import Count

MAX_KEYS = 100_000
LONGEST_WAIT = 10.0
"""Seconds after which a refused request may try again, however many were refused before it: they may have given up."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision about a request, and the state of the caller's limit."""

    allowed: bool
    remaining: int
    """Whole tokens left."""
    retry_after: int
    """Whole seconds until there are enough tokens, also for those that were refused before it; 0 if allowed."""


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
        self._told: dict[str, float] = {}  # the last place that a refused request of the key was told
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
            return Decision(False, int(tokens), max(1, ceil(self._wait(key, tokens, now) - 1e-9)))
        self._allowed += 1
        if len(self._free_at) >= self._max_keys and key not in self._free_at:
            self._forget(now)
        self._free_at[key] = free_at + self.cost / self.rate
        return Decision(True, int(tokens - self.cost + 1e-9), 0)

    def exhausted(self, key: str, now: float) -> bool:
        """Return whether the next request of `key` would be refused; takes nothing."""
        free_at = self._free_at.get(key)
        return free_at is not None and self.burst - (free_at - now) * self.rate + 1e-9 < self.cost

    def statistics(self) -> LimiterStatistics:
        """Return the number of known callers, and of admitted and refused requests."""
        return LimiterStatistics(len(self._free_at), self._allowed, self._refused)

    def _wait(self, key: str, tokens: float, now: float) -> float:
        """Return the seconds until a refused request has its turn, after those refused before it."""
        soonest = (self.cost - tokens) / self.rate
        told = self._told.get(key, 0.0)
        wait = max(soonest, told - now + self.cost / self.rate) if told > now else soonest
        if wait > LONGEST_WAIT:  # the first half of them have come by then: the second lap is behind these
            wait = max(soonest, LONGEST_WAIT / 2)
        if len(self._told) >= self._max_keys and key not in self._told:
            self._told = {other: told for other, told in self._told.items() if told > now and other in self._free_at}
        self._told[key] = now + wait
        return wait

    def _forget(self, now: float) -> None:
        """Drop full buckets; if all are in use, the oldest tenth, whose callers then start afresh."""
        self._free_at = {key: free_at for key, free_at in self._free_at.items() if free_at > now}
        if len(self._free_at) >= self._max_keys:
            for key in list(self._free_at)[: self._max_keys // 10 + 1]:
                del self._free_at[key]
