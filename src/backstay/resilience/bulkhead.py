"""Bulkhead: a bound on calls in flight, so that one slow dependency can't take every worker."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from backstay.resilience import events
from backstay.resilience.admission import Admission, Admitted
from backstay.resilience.config import Seconds, check, in_seconds, not_negative, whole
from backstay.resilience.deadline import remaining
from backstay.resilience.errors import BulkheadFull, DeadlineExceeded
from backstay.resilience.waiter import Waiter

E = TypeVar("E", bound=events.Event)

DEFAULT_MAX_CALLS = 25
PLACE: Admitted = ()  # what a call holds: one place is like another


@dataclass(frozen=True, slots=True)
class BulkheadStatistics:
    """A snapshot: how many calls are in flight, wait, and were refused."""

    max_concurrent_calls: int
    in_flight: int
    waiting: int
    rejected_total: int


class _Claim(Waiter):
    """A place that a caller waits for."""

    __slots__ = ("granted",)

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        super().__init__(loop)
        self.granted = False


class Bulkhead(Admission):
    """At most `max_calls` calls in flight; others wait up to `max_wait` seconds, in order, then are refused.

    `max_calls` of 0 refuses all. A wait ends at the request's deadline, with `DeadlineExceeded`. threads: used by
    several event loops or threads; around a plain function or block it is so by itself.
    """

    def __init__(
        self,
        max_calls: int = DEFAULT_MAX_CALLS,
        *,
        max_wait: Seconds = 0.0,
        name: str = "bulkhead",
        threads: bool = False,
    ) -> None:
        self.max_wait = in_seconds(max_wait)
        check(
            f"Bulkhead '{name}'",
            (whole(max_calls, 0), f"max_calls: {max_calls!r} is not a whole number of at least 0"),
            (not_negative(self.max_wait), f"max_wait: {max_wait!r} is not 0 or more seconds"),
        )
        self.name = name
        self.max_calls = max_calls
        self.in_flight = 0
        self.open_places = (
            max_calls  # places that may be taken without asking: none while there are waiters, or with threads
        )
        self._rejected = 0
        self._waiting: deque[_Claim] = deque()
        self._events = events.Publisher()
        self._lock: AbstractContextManager[Any] = nullcontext()
        if threads:
            self.make_thread_safe()

    def make_thread_safe(self) -> None:
        """Be used by several event loops or threads from now on."""
        if isinstance(self._lock, nullcontext):
            self._lock = threading.RLock()
            self.open_places = 0

    # -- places ---------------------------------------------------------------------------------------------------

    def acquire(self) -> Admitted | BulkheadFull | None:
        """Take a place; None if there is none at once, or the refusal where nothing may wait."""
        if self.in_flight < self.open_places:
            self.in_flight += 1
            return PLACE
        with self._lock:
            if self.in_flight < self.max_calls and not self._waiting:
                self.in_flight += 1
                return PLACE
        if self.max_wait <= 0 or self.max_calls == 0:
            return self._refusal()
        return None

    async def wait(self, held: Any = None) -> Admitted:  # noqa: ARG002 - nothing is held
        """Take a place, waiting for one if need be; raises `BulkheadFull` when there is none in time."""
        limit, refusal = self._limit()
        claim = self._claim(asyncio.get_running_loop())
        if claim is None:
            return PLACE
        try:
            came = await claim.wait(limit)
        except BaseException:
            self._withdraw(claim)
            raise
        return self._came(claim, came, refusal)

    def wait_plain(self) -> Admitted:
        """Do as `wait`, blocking this thread."""
        limit, refusal = self._limit()
        claim = self._claim(None)
        if claim is None:
            return PLACE
        try:
            came = claim.wait_plain(limit)
        except BaseException:
            self._withdraw(claim)
            raise
        return self._came(claim, came, refusal)

    def settle(self, token: Any, error: BaseException | None, result: object = None) -> None:  # noqa: ARG002 - a place is a place
        """Give the place back, or hand it to the first that waits."""
        if self.open_places:
            self.in_flight -= 1
        else:
            self.leave()

    async def enter(self) -> None:
        """Take a place by hand, to be given back with `leave`; raises `BulkheadFull` when there is none in time."""
        await self.admitted()

    def enter_plain(self) -> None:
        """Do as `enter`, blocking this thread."""
        self.admitted_plain()

    def leave(self) -> None:
        """Give the place back, or hand it to the first that waits."""
        with self._lock:
            claim = self._waiting.popleft() if self._waiting else None
            if claim is None:
                self.in_flight -= 1
            else:
                claim.granted = True  # the place is handed over: the number in flight stays
            self._count_waiting()
        if claim is not None:
            claim.wake()

    def _limit(self) -> tuple[float, Callable[[], BaseException]]:
        """Return the longest wait in seconds, and the error to raise after it."""
        left = remaining()
        if left is None or left > self.max_wait:
            return self.max_wait, self._refusal
        return max(0.0, left), lambda: DeadlineExceeded(self.name)

    def _claim(self, loop: asyncio.AbstractEventLoop | None) -> _Claim | None:
        """None if a place was taken, else what to wait for."""
        claim = _Claim(loop)
        with self._lock:
            if self.in_flight < self.max_calls and not self._waiting:
                self.in_flight += 1
                return None
            self._waiting.append(claim)
            self._count_waiting()
        return claim

    def _came(self, claim: _Claim, came: bool, refusal: Callable[[], BaseException]) -> Admitted:
        if came:
            return PLACE
        self._withdraw(claim)
        raise refusal()

    def _withdraw(self, claim: _Claim) -> None:
        """Its caller doesn't wait any more; a place that came at the same moment is passed on."""
        with self._lock:
            if not claim.granted:
                self._waiting.remove(claim)
                self._count_waiting()
                return
        self.leave()

    def _count_waiting(self) -> None:
        if isinstance(self._lock, nullcontext):
            self.open_places = 0 if self._waiting else self.max_calls

    def _refusal(self) -> BulkheadFull:
        with self._lock:
            self._rejected += 1
        self._events.emit(events.BulkheadRejected, self.name)
        refusal: BulkheadFull = BulkheadFull(self.name)
        return refusal

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self._events.on(event, listener)

    def statistics(self) -> BulkheadStatistics:
        """Return a snapshot."""
        return BulkheadStatistics(self.max_calls, self.in_flight, len(self._waiting), self._rejected)

    def __repr__(self) -> str:
        return f"Bulkhead({self.max_calls}, max_wait={self.max_wait:g})"


__all__ = ["Bulkhead", "BulkheadStatistics"]
