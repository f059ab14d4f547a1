"""The ticker: one failing member ends nobody else's time-outs."""

import asyncio
import logging

import pytest

from backstay.http.timers import FAILED_SECONDS, Ticker
from backstay.testing import eventually


class Member:
    def __init__(self, deadline: float, *, failing: bool = False) -> None:
        self.deadline, self.failing, self.fired = deadline, failing, 0

    def expire(self) -> None:
        self.fired += 1
        self.deadline = float("inf")
        if self.failing:
            raise RuntimeError("a fault in one expire")


async def test_a_failing_member_harms_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Every member due is called, whichever raised before; the error is logged and its member called again."""
    now = 100.0
    ticker = Ticker(0.001, lambda: now)
    members = [Member(now, failing=number % 2 == 0) for number in range(5)]
    with caplog.at_level(logging.ERROR):
        for member in members:
            ticker.add(member)
        await eventually(lambda: all(member.fired for member in members))
        late = Member(now)
        ticker.add(late)
        await eventually(lambda: late.fired)
    ticker.close()

    assert [member.fired for member in members] == [1] * 5
    assert [member.deadline for member in members if member.failing] == [now + FAILED_SECONDS] * 3
    assert "a fault in one expire" in caplog.text


async def test_the_ticker_rests_without_members() -> None:
    """No timer runs when there is nothing to watch, and closing ends one that does."""
    ticker = Ticker(0.001)
    member = Member(float("inf"))
    ticker.add(member)
    ticker.discard(member)
    await eventually(lambda: ticker._timer is None)
    ticker.add(member)
    ticker.close()
    await asyncio.sleep(0)

    assert ticker._timer is None
