"""What one process owns: entered in order, left in reverse, each part in bounded time."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from backstay.tasks import background
from backstay.telemetry.logs import get_logger

STOP_TIMEOUT = 60.0
"""Seconds one part may take to stop; then it is given up."""

log = get_logger()

T = TypeVar("T")


class Composition:
    """The parts of a process. Leaving stops them in reverse order.

    A part that fails to stop, or takes longer than its time-out, is logged and doesn't keep the ones before it from
    stopping. A part that fails to start stops those that have started, and its error is raised.
    """

    def __init__(self) -> None:
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def enter(self, name: str, part: AbstractAsyncContextManager[T], *, stop_timeout: float = STOP_TIMEOUT) -> T:
        """Start `part` and own it; `name` is what a failure to stop is logged with."""
        entered = await part.__aenter__()
        self.on_stop(name, lambda: part.__aexit__(None, None, None), stop_timeout=stop_timeout)
        return entered

    def on_stop(self, name: str, stop: Callable[[], Awaitable[object]], *, stop_timeout: float = STOP_TIMEOUT) -> None:
        """Call `stop` when the turn of this step comes."""
        self._stack.push_async_callback(_stop_step, name, stop, stop_timeout)

    def background(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run `work` in a supervised task from now on."""
        self.on_stop(name, background(work, name=name).stop)


async def _stop_step(name: str, stop: Callable[[], Awaitable[object]], timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await stop()
    except Exception as error:
        log.error("process.stop_failed", part=name, error=f"{type(error).__name__}: {error}", exc_info=error)


__all__ = ["STOP_TIMEOUT", "Composition"]
