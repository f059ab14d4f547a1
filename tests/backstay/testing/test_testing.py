import asyncio
from datetime import timedelta

import pytest

from backstay.clock import SYSTEM
from backstay.errors import BackstayError, ConfigError
from backstay.testing import FakeClock, eventually


async def test_fake_clock_moves_both_times() -> None:
    """`advance` moves wall time and monotonic time alike."""
    clock = FakeClock()
    now, monotonic = clock.now(), clock.monotonic()

    clock.advance(90)

    assert clock.now() - now == timedelta(seconds=90)
    assert clock.monotonic() - monotonic == 90


async def test_fake_clock_wakes_in_order() -> None:
    """Sleepers wake when their time has come, the earliest first."""
    clock = FakeClock()
    woken: list[int] = []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2):
            group.create_task(sleeper(seconds))
        await clock.settle()
        assert clock.sleepers == 3
        clock.advance(2)
        await clock.settle()
        assert woken == [1, 2]
        await clock.run(1)

    assert woken == [1, 2, 3]


async def test_run_goes_round_loops() -> None:
    """`run` stops at each sleeper, so a loop that sleeps takes each of its turns."""
    clock = FakeClock()
    turns: list[float] = []

    async def loop() -> None:
        while True:
            await clock.sleep(1)
            turns.append(clock.monotonic())

    task = asyncio.create_task(loop())
    await clock.run(5)
    task.cancel()

    assert turns == [1001, 1002, 1003, 1004, 1005]


async def test_cancelled_sleeper_is_forgotten() -> None:
    """A cancelled sleeper doesn't disturb the clock."""
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(5))
    await clock.settle()
    task.cancel()
    await clock.settle()

    assert clock.sleepers == 0
    clock.advance(10)


async def test_system_clock() -> None:
    """The real clock is aware, in UTC, and its sleep yields."""
    assert SYSTEM.now().utcoffset() == timedelta(0)
    started = SYSTEM.monotonic()
    await SYSTEM.sleep(0)
    assert SYSTEM.monotonic() >= started


async def test_eventually_returns_the_value() -> None:
    """The condition may be a coroutine function and may raise until it is true."""
    values = iter([0, 0, 7])

    async def condition() -> int:
        return next(values)

    assert await eventually(condition, interval=0) == 7
    calls = iter([ValueError("not yet"), None])

    def raising() -> bool:
        if (error := next(calls)) is not None:
            raise error
        return True

    assert await eventually(raising, interval=0)


async def test_eventually_tells_what_was_last() -> None:
    """When time is up, the last value or exception is in the message."""
    with pytest.raises(AssertionError, match=r"last: \[\]"):
        await eventually(list, timeout=0.01, interval=0)
    with pytest.raises(AssertionError, match="ZeroDivisionError") as caught:
        await eventually(lambda: 1 // 0, timeout=0.01, interval=0)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_errors_have_a_default_message() -> None:
    """An error without a message says its class's first docstring line."""

    class Odd(BackstayError):
        """Something odd."""

    assert str(Odd()) == "Something odd."
    assert str(Odd("precisely")) == "precisely"


def test_config_error_lists_every_problem() -> None:
    """All problems are in the message, one per line."""
    error = ConfigError(["PORT: 'x' is not a number", "HOST: empty"])

    assert error.problems == ("PORT: 'x' is not a number", "HOST: empty")
    assert str(error).splitlines() == list(error.problems)
