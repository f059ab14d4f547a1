"""Ctrl-C, once and twice: the first stops in order, the second at once. Under nohup the end of a terminal doesn't."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from typing import TypeVar

from backstay.dev.program import allow_helpers, end_helpers

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
INTERRUPTED = 130  # exit status of a program ended by Ctrl-C


class Stopped(Exception):
    """A stop was requested, and everything has been stopped in order."""


async def until_stopped(work: Awaitable[T], *, at_once: Callable[[], None], tell: Callable[[str], None]) -> T:
    """Run `work`; the first signal cancels it and lets it leave in order, the second calls `at_once` and exits.

    Raises Stopped when `work` has ended because of a signal.
    """
    allow_helpers()
    task = asyncio.ensure_future(work)
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            at_once()
            os._exit(INTERRUPTED)
        asked = True
        tell("stopping; once more to stop at once")
        task.cancel()
        end_helpers()

    loop = asyncio.get_running_loop()
    heeded = [number for number in SIGNALS if number != signal.SIGHUP or not _is_ignored(number)]
    for number in heeded:
        loop.add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if asked:
            raise Stopped from None
        raise
    finally:
        for number in heeded:
            loop.remove_signal_handler(number)


def _is_ignored(number: int) -> bool:
    """Return whether we were started with the signal ignored, as nohup does with SIGHUP."""
    return signal.getsignal(number) == signal.SIG_IGN
