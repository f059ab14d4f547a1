"""A rebuild: a new generation reads everything again beside the old one, then takes its place."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.db import Database
from backstay.messaging import MemoryBroker
from backstay.service import Conflict, Unavailable
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
    await desk.db.execute("UPDATE generations SET retired_at = retired_at - interval '1 hour'")
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


async def test_a_consumer_in_the_middle_of_a_batch_and_a_rebuild_do_not_wait_for_each_other(desk: Any, database: str):
    """A transaction that has one table and wants the other, in either order: both end, nobody is a victim."""
    for first, second in (("orders", "order_lines"), ("order_lines", "orders")):
        async with Database("consumer", dsn=database) as db, db.transaction() as tx:
            await tx.execute(f"DELETE FROM {first} WHERE generation = 1")
            opened = await asyncio.wait_for(desk.analytics.rebuild(), 5)
            await tx.execute(f"DELETE FROM {second} WHERE generation = 1")
        assert await desk.analytics.swap(opened.generation)


async def test_old_tables_are_dropped_under_a_steady_consumer(desk: Any, story: Any, database: str):
    """Each table waits for its lock alone, is given up and tried again; the consumer's transactions all commit."""
    newest = (await desk.analytics.rebuild()).generation
    await desk.analytics.swap(newest)
    await desk.db.execute("UPDATE generations SET retired_at = retired_at - interval '1 hour' WHERE state = 'retired'")
    stop, batches = asyncio.Event(), 0

    async def consume(order: tuple[str, str]) -> None:
        nonlocal batches
        async with Database("consumer", dsn=database) as db:
            while not stop.is_set():
                async with db.transaction() as tx:
                    for table in order:
                        await tx.execute(f"DELETE FROM {table} WHERE generation = {newest}")
                        await asyncio.sleep(0)
                batches += 1

    tables = ("orders", "order_lines")
    consumers = [asyncio.create_task(consume(order)) for order in (tables, tables[::-1]) for _ in range(2)]
    assert await desk.analytics.drop_retired() == [1]
    stop.set()
    await asyncio.gather(*consumers)
    assert batches
    assert await desk.db.fetchval("SELECT coalesce(to_regclass('orders_1'), to_regclass('order_lines_1'))") is None


async def test_a_drop_that_dies_in_the_middle_is_continued(desk: Any):
    """The row goes last: what is left of the tables is found through it."""
    await desk.analytics.swap((await desk.analytics.rebuild()).generation)
    await desk.db.execute("UPDATE generations SET retired_at = retired_at - interval '1 hour' WHERE state = 'retired'")
    await desk.db.execute("DROP TABLE orders_1")

    assert await desk.analytics.drop_retired() == [1]
    assert await desk.analytics.drop_retired() == []
    assert await desk.db.fetchval("SELECT to_regclass('order_lines_1')") is None


async def test_a_table_that_stays_locked_is_no_error_of_ours(desk: Any, database: str):
    """Given up after a while with a problem that says when to repeat, and nothing is left half-done."""
    async with Database("backup", dsn=database) as db, db.transaction() as tx:
        await tx.execute(
            "LOCK TABLE orders IN ACCESS SHARE MODE; LOCK TABLE order_lines IN SHARE UPDATE EXCLUSIVE MODE"
        )
        with pytest.raises(Unavailable):
            await desk.analytics.rebuild()
    assert (await desk.analytics.rebuild()).generation == 2


async def _is(figure: Any, desk: Any, wanted: int) -> bool:
    return bool(await figure(desk) == wanted)


async def _current_is(desk: Any, generation: int) -> bool:
    [current] = [found for found in await desk.analytics.generations() if found.state is State.CURRENT]
    return bool(current.generation == generation)
