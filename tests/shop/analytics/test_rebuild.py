"""A rebuild: a new generation reads everything again beside the old one, then takes its place."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.messaging import MemoryBroker
from backstay.service import Conflict
from backstay.testing import eventually
from shop.analytics.handlers import Readers
from shop.analytics.model import State

ADA = UUID(int=1)


@pytest.fixture
async def readers(desk: Any, broker: MemoryBroker) -> AsyncIterator[Readers]:
    desk.readers.use_broker(broker)
    async with desk.readers:
        yield desk.readers


async def confirmed(desk: Any) -> int:
    return int((await desk.analytics.funnel()).confirmed)


async def test_a_rebuild_counts_everything_again_and_takes_over(desk: Any, story: Any, publish: Any, readers: Readers):
    """Wrong figures are right again after a rebuild, events that come meanwhile are in it, and the old one goes."""
    for _ in range(5):
        one = story(uuid4(), ADA, {"A": 1})
        await publish(one.event("created"), one.event("confirmed"))
    await eventually(lambda: _is(confirmed, desk, 5))
    await desk.db.execute("UPDATE orders SET confirmed_at = NULL")
    assert await confirmed(desk) == 0

    opened = await desk.analytics.rebuild()
    with pytest.raises(Conflict, match="being built"):
        await desk.analytics.rebuild()
    await eventually(lambda: _current_is(desk, opened.generation))
    await eventually(lambda: _is(confirmed, desk, 5))
    await publish(story(uuid4(), ADA, {"A": 1}).event("confirmed"))
    await eventually(lambda: _is(confirmed, desk, 6))

    states = {found.generation: found.state for found in await desk.analytics.generations()}
    assert states == {1: State.RETIRED, 2: State.CURRENT}
    assert await desk.analytics.drop_retired() == []
    desk.clock.advance(3600)
    assert await desk.analytics.drop_retired() == [1]
    assert await desk.db.fetchval("SELECT to_regclass('orders_1')") is None
    assert await confirmed(desk) == 6
    assert (await desk.analytics.rebuild()).generation == 3


async def test_an_empty_shop_can_be_rebuilt(desk: Any, readers: Readers):
    """Nothing to read is read quickly."""
    opened = await desk.analytics.rebuild()

    await eventually(lambda: _current_is(desk, opened.generation))


async def test_two_instances_follow_the_same_generations(
    desk: Any, story: Any, publish: Any, broker: MemoryBroker, readers: Readers
):
    """Both read, one swaps, each event counts once."""
    second = Readers(desk.db, desk.analytics, interval=0.05)
    second.use_broker(broker)
    async with second:
        opened = await desk.analytics.rebuild()
        await publish(*(story(uuid4(), ADA, {"A": 1}).event("confirmed") for _ in range(20)))
        await eventually(lambda: _current_is(desk, opened.generation))
        await eventually(lambda: _is(confirmed, desk, 20))


async def test_only_what_is_being_built_can_be_swapped_in(desk: Any):
    """A swap that somebody else has done, or that nobody asked for, changes nothing."""
    assert await desk.analytics.swap(1) is False
    assert await desk.analytics.swap(2) is False
    opened = await desk.analytics.rebuild()
    assert await desk.analytics.swap(opened.generation) is True
    assert await desk.analytics.swap(opened.generation) is False

    assert [found.state for found in await desk.analytics.generations()] == [State.CURRENT, State.RETIRED]


async def _is(figure: Any, desk: Any, wanted: int) -> bool:
    return bool(await figure(desk) == wanted)


async def _current_is(desk: Any, generation: int) -> bool:
    [current] = [found for found in await desk.analytics.generations() if found.state is State.CURRENT]
    return bool(current.generation == generation)
