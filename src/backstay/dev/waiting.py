"""Waiting for something elsewhere that nobody tells us about."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], Awaitable[object]], *, timeout: float, poll: float = 0.05) -> bool:
    """Ask every `poll` seconds until it holds: True, or False when `timeout` seconds are over."""
    try:
        async with asyncio.timeout(timeout):
            while not await holds():  # noqa: ASYNC110 - other processes set no event of ours
                await asyncio.sleep(poll)
    except TimeoutError:
        return False
    return True
