"""A clock that is read as an attribute: the time of the event loop's latest tick.

Reading the machine's clock twice is most of what a guarded call costs. Where a few milliseconds don't matter, a cell
that the loop refreshes is enough. A loop that is blocked refreshes nothing: a call that blocks it looks as short as it
is long, so measure slow calls with it only where nothing blocks.
"""

import asyncio
import time
from types import TracebackType
from typing import Self

from backstay.clock import SystemClock
from backstay.resilience.config import Seconds, check, in_seconds, within

RESOLUTION = 0.005  # seconds between two ticks


class CoarseClock(SystemClock):
    """`async with CoarseClock() as clock:` and `CircuitBreaker(..., clock=clock)`; elsewhere it is the system's."""

    def __init__(self, resolution: Seconds = RESOLUTION) -> None:
        self.resolution = in_seconds(resolution)
        check("CoarseClock", (within(self.resolution, 0, 1), f"resolution: {resolution!r} is not in (0, 1] seconds"))
        self.cell = 0.0  # the latest tick; 0.0 while nobody ticks
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._tick(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.cell, self._timer = 0.0, None

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        self.cell = time.monotonic()
        self._timer = loop.call_later(self.resolution, self._tick, loop)

    def __repr__(self) -> str:
        return f"CoarseClock({self.resolution:g})"


__all__ = ["CoarseClock"]
