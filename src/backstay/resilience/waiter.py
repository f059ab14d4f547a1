"""A caller that waits for its turn: a task of an event loop, or a thread; woken from any thread."""

import asyncio
import threading
from typing import Any


class Waiter:
    """One caller that waits, until `wake`."""

    __slots__ = ("_event", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop | None) -> None:
        self._loop = loop
        self._event: Any = threading.Event() if loop is None else loop.create_future()

    def wake(self) -> None:
        """Let it go on; callable from any thread, and more than once."""
        if self._loop is None:
            self._event.set()
        elif self._loop is _running_loop():
            self._wake()
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    async def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds`; whether it was woken."""
        try:
            async with asyncio.timeout(seconds):
                await self._event
        except TimeoutError:
            return False
        return True

    def wait_plain(self, seconds: float) -> bool:
        """Do as `wait`, blocking this thread."""
        woken: bool = self._event.wait(seconds)
        return woken

    def _wake(self) -> None:
        if not self._event.done():
            self._event.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


__all__ = ["Waiter"]
