"""Polling for a state elsewhere that sends no notification."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(holds: Callable[[], Awaitable[object]], *, timeout: float, poll: float = 0.05) -> bool:
    """Poll every `poll` seconds until it holds: True, or False after `timeout` seconds."""
    try:
        async with asyncio.timeout(timeout):
            while not await holds():  # noqa: ASYNC110 - other processes set no event of ours
                await asyncio.sleep(poll)
    except TimeoutError:
        return False
    return True
