"""Time-outs without a timer per request: one coarse tick checks everything that has a deadline."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

TICK_SECONDS = 0.1
FAILED_SECONDS = 1.0
"""After which a member whose `expire` raised is called again."""

log = logging.getLogger("backstay.http.timers")


class Expiring(Protocol):
    """Something with a deadline on the monotonic clock; `inf` means none."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed. May set a new one."""


class Ticker:
    """Calls `expire` on members whose deadline passed, at most one tick late. Inactive while it has no members.

    A member whose `expire` raises harms no other: the error is logged, and the member is called again a second later.
    """

    def __init__(self, tick: float = TICK_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self.tick = tick
        self.clock = clock
        self._members: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, member: Expiring) -> None:
        """Watch a member until it is discarded."""
        self._members.add(member)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self.tick, self._run)

    def discard(self, member: Expiring) -> None:
        """Watch it no longer."""
        self._members.discard(member)

    def expire(self, now: float) -> None:
        """Call every member whose deadline is not after `now`."""
        for member in [m for m in self._members if m.deadline <= now]:
            try:
                member.expire()
            except Exception:
                member.deadline = now + FAILED_SECONDS
                log.exception("http.expire_failed")

    def _run(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self.tick, self._run) if self._members else None
        self.expire(self.clock())

    def close(self) -> None:
        """Stop ticking."""
        self._members.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
