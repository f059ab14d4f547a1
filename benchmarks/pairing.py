"""Paired slices: a slice of the thing measured between two slices of a bare await, and the median of the ratios.

On a machine that others slow down by 1–3× for seconds, an absolute time says little; a ratio taken within milliseconds
does. Times are CPU seconds of this thread.
"""

import asyncio
import gc
import platform
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from importlib import metadata
from itertools import repeat

SLICE = 0.002  # seconds of the thing measured per slice
BARE = 8000  # bare awaits per slice
YIELD = 50  # calls between two visits of the event loop, so that what timers hold is collected as in life


async def bare() -> int:
    """What everything is compared with: a coroutine that doesn't suspend."""
    return 1


async def _bare_slice() -> float:
    started = time.thread_time()
    for _ in repeat(None, BARE):
        await bare()
    return (time.thread_time() - started) / BARE


async def _slice(call: Callable[[], Awaitable[object]], calls: int, failing: bool) -> float:
    started = time.thread_time()
    for _ in repeat(None, calls // YIELD):
        for _ in repeat(None, YIELD):
            if failing:
                try:  # noqa: SIM105 - the cheaper form
                    await call()
                except Exception:
                    pass
            else:
                await call()
        await asyncio.sleep(0)
    return (time.thread_time() - started) / calls


async def over_bare(call: Callable[[], Awaitable[object]], *, failing: bool = False, slices: int = 60) -> float:
    """How many bare awaits a call takes: the median of paired slices."""
    cost = max(await _slice(call, 200, failing), 1e-7)
    calls = max(YIELD, int(SLICE / cost)) // YIELD * YIELD
    gc.collect()
    gc.disable()
    try:
        ratios = []
        for _ in range(slices):
            before = await _bare_slice()
            measured = await _slice(call, calls, failing)
            ratios.append(2 * measured / (before + await _bare_slice()))
    finally:
        gc.enable()
    return statistics.median(ratios)


async def bare_await() -> float:
    """Seconds of a bare await in the quietest of 200 slices."""
    return min([await _bare_slice() for _ in range(200)])


def environment(*packages: str) -> str:
    """One line: interpreter, processor count, versions of packages."""
    versions = " ".join(f"{package} {metadata.version(package)}" for package in packages)
    return f"Python {platform.python_version()} on {sys.platform} {platform.machine()} {versions}".strip()
