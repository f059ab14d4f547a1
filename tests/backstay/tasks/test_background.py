"""A background task belongs to its owner: it runs until it is stopped, and ends with it."""

import asyncio

import pytest

from backstay.tasks import BackgroundTask, Backoff, background
from backstay.testing import FakeClock


async def test_runs_until_it_is_stopped() -> None:
    """After `stop` the work has ended, not only been asked to."""
    events: list[str] = []

    async def work() -> None:
        events.append("began")
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("ended")

    task = background(work, name="work")
    await asyncio.sleep(0)
    assert task.running
    await task.stop()

    assert (events, task.running) == (["began", "ended"], False)


async def test_start_and_stop_are_idempotent() -> None:
    """A second `start` begins nothing, `stop` before `start` and a second one do nothing, and it can start again."""
    runs: list[int] = []

    async def work() -> None:
        runs.append(1)
        await asyncio.Event().wait()

    task = BackgroundTask(work, name="work")
    await task.stop()
    for _ in range(2):
        task.start()
        task.start()
        await asyncio.sleep(0)
        await task.stop()
        await task.stop()

    assert len(runs) == 2


async def test_restarts_after_growing_waits(caplog: pytest.LogCaptureFixture) -> None:
    """Work that fails or returns is logged and runs again, after waits that grow while it keeps failing at once."""
    clock = FakeClock()
    began: list[float] = []

    async def work() -> None:
        began.append(clock.monotonic())
        if len(began) % 2:
            raise RuntimeError("broken")

    start = clock.monotonic()
    async with BackgroundTask(work, name="work", restart=Backoff(first=1.0, cap=4.0, jitter=0.0), clock=clock):
        await clock.run(11)

    assert [at - start for at in began] == [0, 1, 3, 7, 11]
    first = vars(caplog.records[0])
    assert (first["msg"], first["task"], first["error"], first["restart_in"]) == (
        "tasks.task_ended",
        "work",
        "RuntimeError: broken",
        1.0,
    )
    assert vars(caplog.records[1])["error"] == "it returned"


async def test_healthy_run_resets_the_wait() -> None:
    """Work that ran for longer than the longest wait restarts after the first wait again."""
    clock = FakeClock()
    began: list[float] = []

    async def work() -> None:
        began.append(clock.monotonic())
        if len(began) == 3:
            await clock.sleep(100.0)
        raise RuntimeError("broken")

    start = clock.monotonic()
    async with BackgroundTask(work, name="work", restart=Backoff(first=1.0, cap=4.0, jitter=0.0), clock=clock):
        await clock.run(104)

    assert [at - start for at in began] == [0, 1, 3, 104]
