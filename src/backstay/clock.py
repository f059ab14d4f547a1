"""Time as a dependency: code that waits or compares times takes a `Clock`, so that a test controls it."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Wall time, monotonic time for durations, and a way to wait."""

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""

    def monotonic(self) -> float:
        """Return the seconds since a fixed moment; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; zero or less only yields to other tasks."""

    def wait(self, seconds: float) -> None:
        """Block this thread for `seconds`: for code without an event loop."""


class SystemClock:
    """The machine's own clock."""

    monotonic = staticmethod(time.monotonic)

    def now(self) -> datetime:
        """Return the current time, aware, in UTC."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`; zero or less only yields to other tasks."""
        await asyncio.sleep(seconds)

    def wait(self, seconds: float) -> None:
        """Block this thread for `seconds`."""
        time.sleep(max(0.0, seconds))

    def __repr__(self) -> str:
        return "SYSTEM"


SYSTEM: Clock = SystemClock()


async def pause(clock: Clock, seconds: float, wake: asyncio.Event) -> None:
    """Wait for `seconds`, or less if `wake` is set meanwhile."""
    waits = {asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(wake.wait())}
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)


__all__ = ["SYSTEM", "Clock", "SystemClock", "pause"]
