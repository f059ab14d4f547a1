"""Waiting for what a test expects, instead of sleeping and hoping."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEFAULT_TIMEOUT = 10.0  # seconds
DEFAULT_INTERVAL = 0.02  # seconds between two looks


async def eventually(
    condition: Callable[[], T | Awaitable[T]],
    *,
    timeout: float = DEFAULT_TIMEOUT,
    interval: float = DEFAULT_INTERVAL,
) -> T:
    """The first truthy value of `condition`, which may be a coroutine function and may raise meanwhile.

    AssertionError, with the last value or exception, when there was none within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        last: object
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
            raise AssertionError(f"not true within {timeout:g} s; last: {last!r}") from cause
        await asyncio.sleep(interval)
