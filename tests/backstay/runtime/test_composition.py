"""Parts of a process stop in reverse order, each in bounded time, whatever becomes of the others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from backstay.runtime import composition
from backstay.runtime.composition import Composition


@asynccontextmanager
async def part(name: str, events: list[str], *, fails: bool = False) -> AsyncIterator[str]:
    """A part that records when it starts and stops."""
    events.append(f"{name} starts")
    yield name
    events.append(f"{name} stops")
    if fails:
        raise RuntimeError(name)


async def test_parts_stop_in_reverse() -> None:
    """What was started first stops last."""
    events: list[str] = []
    async with Composition() as parts:
        assert await parts.enter("a", part("a", events)) == "a"
        await parts.enter("b", part("b", events))

    assert events == ["a starts", "b starts", "b stops", "a stops"]


async def test_failed_stop_is_logged_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that can't stop doesn't keep the others running, and is named in the log."""
    events: list[str] = []
    logged: list[tuple[str, object]] = []
    monkeypatch.setattr(composition.log, "error", lambda event, **fields: logged.append((event, fields["part"])))
    async with Composition() as parts:
        await parts.enter("a", part("a", events))
        await parts.enter("b", part("b", events, fails=True))

    assert events[-2:] == ["b stops", "a stops"]
    assert logged == [("process.stop_failed", "b")]


async def test_hanging_stop_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that never stops costs its time-out, no more."""
    events: list[str] = []
    logged: list[str] = []
    monkeypatch.setattr(composition.log, "error", lambda _, **fields: logged.append(fields["error"]))
    async with Composition() as parts:
        await parts.enter("a", part("a", events))
        parts.on_stop("b", asyncio.Event().wait, stop_timeout=0.01)

    assert events[-1] == "a stops"
    assert logged == ["TimeoutError: "]


async def test_failed_start_stops_what_has_started() -> None:
    """The error of the start is raised after the parts before it have stopped."""
    events: list[str] = []

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ConnectionError("no server")
        yield

    with pytest.raises(ConnectionError, match="no server"):
        async with Composition() as parts:
            await parts.enter("a", part("a", events))
            await parts.enter("b", broken())

    assert events == ["a starts", "a stops"]


async def test_background_work_ends_with_the_composition() -> None:
    """A task of the process doesn't outlive it."""
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with Composition() as parts:
        parts.background("work", work)
        await asyncio.sleep(0)

    assert ended.is_set()
