"""Concurrent work leaves nothing behind, however one part of it ends."""

import asyncio

import pytest

from backstay.tasks import gather_all


async def test_results_come_in_order() -> None:
    """As given, whichever ends first."""

    async def after(event: asyncio.Event, value: int) -> int:
        await event.wait()
        return value

    first, second = asyncio.Event(), asyncio.Event()
    both = asyncio.ensure_future(gather_all(after(first, 1), after(second, 2)))
    second.set()
    await asyncio.sleep(0)
    first.set()

    assert await both == [1, 2]
    assert await gather_all() == []


async def test_a_failure_waits_for_the_others() -> None:
    """The error is raised when the last one has ended; of two errors, the first in order."""
    release, ended = asyncio.Event(), []

    async def slow() -> None:
        await release.wait()
        ended.append("slow")
        raise KeyError("second")

    async def fails() -> None:
        raise ValueError("first")

    both = asyncio.ensure_future(gather_all(fails(), slow()))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not both.done()
    release.set()

    with pytest.raises(ValueError, match="first"):
        await both
    assert ended == ["slow"]


async def test_a_cancellation_reaches_all() -> None:
    """Whoever gives up the whole gives up each part."""
    cancelled = []

    async def waits(name: str) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    both = asyncio.ensure_future(gather_all(waits("a"), waits("b")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    both.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both

    assert cancelled == ["a", "b"]
