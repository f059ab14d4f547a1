"""What is measured is what customers would have felt."""

import asyncio
import time
import xml.etree.ElementTree as ElementTree

import pytest

from lab.load.plot import Line, growth, over_time, percentiles
from lab.load.run import Measured, closed, open_loop
from lab.load.scenario import Outcome


class Stalling:
    """Answers at once, but for one stall of `seconds` in which nobody is answered."""

    def __init__(self, after: int, seconds: float) -> None:
        self.left, self.seconds, self.open = after, seconds, asyncio.Event()
        self.open.set()

    async def act(self) -> Outcome:
        self.left -= 1
        if self.left == 0:
            self.open.clear()
            await asyncio.sleep(self.seconds)
            self.open.set()
        await self.open.wait()
        return Outcome("order", 201)


async def test_an_open_loop_counts_the_wait_of_those_it_could_not_send() -> None:
    """A stall of half a second at 200 a second is felt by a hundred customers, however few connections there are."""
    measured = Measured()
    await open_loop(Stalling(50, 0.5).act, rate=200, clients=1, seconds=1.0, measured=measured)

    assert measured.good == 200
    assert measured.all.percentile(75) > 0.2


async def test_a_closed_loop_hides_it() -> None:
    """With one client one single request was slow: that is why it isn't used for percentiles under load."""
    measured = Measured()

    async def act() -> Outcome:
        await asyncio.sleep(0.002)
        return await stalling.act()

    stalling = Stalling(50, 0.5)
    await closed(act, clients=1, seconds=1.0, measured=measured)

    assert measured.all.percentile(75) < 0.2
    assert measured.all.longest >= 0.5


async def test_what_isnt_answered_at_the_end_is_late() -> None:
    """Not forgotten: it is counted as such."""
    measured = Measured()

    async def never() -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    started = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lab.load.run.DRAIN", 0.1)
        await open_loop(never, rate=50, clients=4, seconds=0.2, measured=measured)

    assert measured.late == 10
    assert time.monotonic() - started < 2


async def test_bad_answers_are_counted_and_not_timed() -> None:
    """A refusal is quick; it must not make the system look fast."""
    measured = Measured()
    outcomes = iter([Outcome("order", 201), Outcome("order", 503), Outcome("browse", 0)] * 5)

    async def act() -> Outcome:
        return next(outcomes)

    await open_loop(act, rate=300, clients=2, seconds=0.05, measured=measured)
    assert (measured.good, measured.bad) == (5, 10)
    assert measured.all.count == 5


def test_plots_are_svg() -> None:
    """Well-formed, one line for each name, nothing of a name breaks it."""
    lines = [Line("a<b", [(0, 1), (50, 2), (99.9, 900)]), Line("c", [(0, 1.5)])]
    for text in (percentiles("p", lines), over_time("t", lines, unit="MB"), over_time("empty", [], unit="MB")):
        ElementTree.fromstring(text)
    assert percentiles("p", lines).count("<polyline") == 2


def test_growth_is_the_slope() -> None:
    """Two more each second."""
    assert growth([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert growth([(0, 4), (5, 4)]) == 0
    assert growth([]) == 0
