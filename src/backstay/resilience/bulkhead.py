"""Bulkhead: a bound on calls in flight, so that one slow dependency can't take every worker."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience.errors import BulkheadFull
from backstay.resilience.policy import Call, Guarded, Policy

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_MAX_CALLS = 25


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot: how many calls are in flight, wait, and were refused."""

    max_concurrent_calls: int
    in_flight: int
    waiting: int
    rejected_total: int


class Bulkhead(Policy):
    """At most `max_calls` calls in flight; others wait up to `max_wait` seconds, in order, then are refused.

    `max_calls` of 0 refuses all.
    """

    def __init__(self, max_calls: int = DEFAULT_MAX_CALLS, *, max_wait: float = 0.0, name: str = "bulkhead") -> None:
        if max_calls < 0 or max_wait < 0:
            raise ConfigError([f"Bulkhead '{name}': max_calls {max_calls} and max_wait {max_wait} can't be negative"])
        self.name = name
        self.max_calls = max_calls
        self.max_wait = max_wait
        self.in_flight = 0
        self._rejected = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard `call` with this bound."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            if self.in_flight < self.max_calls and not self.waiting:
                self.in_flight += 1
            else:
                await self.enter()
            try:
                return await call(*args, **kwargs)
            finally:
                self.leave()

        return guarded

    async def enter(self) -> None:
        """Wait for a place; raises `BulkheadFull` when there is none in time."""
        if self.max_wait <= 0 or self.max_calls == 0:
            self._refuse()
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(place)
        try:
            async with asyncio.timeout(self.max_wait):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self.leave()  # the place came together with the time-out or the cancellation: pass it on
            elif place in self.waiting:
                self.waiting.remove(place)
            if isinstance(error, TimeoutError):
                self._refuse()
            raise

    def leave(self) -> None:
        """Give the place back, or hand it to the first who waits."""
        while self.waiting:
            place = self.waiting.popleft()
            if not place.done():
                place.set_result(None)  # hands the place over: the number in flight stays
                return
        self.in_flight -= 1

    def _refuse(self) -> None:
        self._rejected += 1
        raise BulkheadFull(self.name)

    def statistics(self) -> BulkheadStatistics:
        """A snapshot."""
        return BulkheadStatistics(self.max_calls, self.in_flight, len(self.waiting), self._rejected)

    def __repr__(self) -> str:
        return f"Bulkhead({self.max_calls}, max_wait={self.max_wait:g})"


__all__ = ["Bulkhead", "BulkheadStatistics"]
