"""Stop signals: the first begins an ordered stop, the second ends draining, the third kills the process as usual."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignal:
    """Handles SIGTERM and SIGINT between enter and exit."""

    def __init__(self) -> None:
        self.name: str | None = None
        """The first signal received; None before it."""
        self._event = asyncio.Event()
        self._starting: asyncio.Task[Any] | None = None
        self._stop_draining: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        for number in SIGNALS:
            self._loop.add_signal_handler(number, self.catch, number.name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._release()

    @contextlib.asynccontextmanager
    async def cancels_start(self) -> AsyncIterator[None]:
        """A signal inside the block, before `started`, cancels it; the block then ends without an error."""
        self._starting = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._starting is None or self.name is None or task is None or task.uncancel() > 0:
                raise

    def started(self, stop_draining: Callable[[], None]) -> None:
        """From now on the first signal ends `wait_or`, and the second calls `stop_draining`."""
        self._stop_draining = stop_draining
        self._starting = None

    async def wait_or(self, ended: Coroutine[Any, Any, None]) -> None:
        """Return at the first signal, or when `ended` does, with its error."""
        end = asyncio.ensure_future(ended)
        stop = asyncio.ensure_future(self._event.wait())
        try:
            await asyncio.wait({end, stop}, return_when=asyncio.FIRST_COMPLETED)
            if end.done():
                await end
        finally:
            stop.cancel()
            end.cancel()

    def catch(self, name: str) -> None:
        """Handle a signal."""
        if self.name is None:
            self.name = name
            self._event.set()
            if self._starting is not None:
                self._starting.cancel()
        elif self._stop_draining is not None:
            self._stop_draining()
            self._release()

    def _release(self) -> None:
        if self._loop is not None:
            for number in SIGNALS:
                self._loop.remove_signal_handler(number)
            self._loop = None


__all__ = ["SIGNALS", "StopSignal"]
