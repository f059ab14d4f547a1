"""Time-outs without a timer per request: one coarse tick looks at everything that has a deadline."""

import asyncio
from typing import Protocol

TICK_SECONDS = 0.1


class Expiring(Protocol):
    """Something with a deadline on the loop's clock; `inf` means none."""

    deadline: float

    def expire(self) -> None:
        """The deadline has passed. May set a new one."""


class Ticker:
    """Calls `expire` on members whose deadline passed, at most one tick late. Still while it has no members."""

    def __init__(self, tick: float = TICK_SECONDS) -> None:
        self._tick = tick
        self._members: set[Expiring] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, member: Expiring) -> None:
        """Watch a member until it is discarded."""
        self._members.add(member)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._tick, self._look)

    def discard(self, member: Expiring) -> None:
        """Watch it no longer."""
        self._members.discard(member)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for member in [m for m in self._members if m.deadline <= now]:
            member.expire()
        self._timer = loop.call_later(self._tick, self._look) if self._members else None

    def close(self) -> None:
        """Stop ticking."""
        self._members.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
