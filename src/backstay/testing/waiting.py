"""Waiting for what a test expects, instead of sleeping and hoping."""

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEFAULT_TIMEOUT = 10.0  # seconds
DEFAULT_INTERVAL = 0.02  # seconds between two polls
SCALE_VARIABLE = "BACKSTAY_WAIT_SCALE"
"""Environment variable with the factor by which deadlines of waits grow on a slow or busy machine."""


def scaled(seconds: float) -> float:
    """Return the deadline of a wait on this machine: `seconds` times `BACKSTAY_WAIT_SCALE` (1 unless it is set).

    For deadlines after which a test gives up, never for a bound that a test asserts. ValueError when the variable is
    no number.
    """
    return seconds * float(os.environ.get(SCALE_VARIABLE) or 1.0)


async def eventually(
    condition: Callable[[], T | Awaitable[T]],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    interval: float = DEFAULT_INTERVAL,
) -> T:
    """Return the first truthy value of `condition`, which may be a coroutine function and may raise meanwhile.

    AssertionError, with the last value or exception, when there was none within `scaled(timeout)` seconds.
    """
    limit = scaled(timeout)
    deadline = time.monotonic() + limit
    polls = 0
    while True:
        last: object
        polls += 1
        try:
            result = condition()
            value: T = await result if inspect.isawaitable(result) else result
            if value:
                return value
            last = value
        except Exception as error:  # noqa: BLE001
            last = error
        if time.monotonic() >= deadline:
            cause = last if isinstance(last, Exception) else None
            raise AssertionError(f"not true within {limit:g} s ({polls} polls); last: {last!r}") from cause
        await asyncio.sleep(interval)
