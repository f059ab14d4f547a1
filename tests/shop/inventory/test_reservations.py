"""Reservations on a real PostgreSQL: all or nothing, once, whatever is repeated or comes first."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.db import CheckViolation, DatabaseError
from shop.contracts.products import ProductCreated
from shop.inventory.model import Wish
from shop.kernel import Money

AT = datetime(2026, 1, 1, tzinfo=UTC)
ANSWERS = ("inventory.reserved", "inventory.rejected")


async def test_a_confirmed_order_takes_its_stock(warehouse: Any):
    """All lines are held, each with its ledger line and its event, and the order is told once."""
    order_id = uuid4()
    await warehouse.fill({"A": 10, "B": 6})

    await warehouse.confirm(order_id, {"B": 5, "A": 3})

    assert await warehouse.available() == {"A": 7, "B": 1}
    assert await warehouse.state(order_id) == "reserved"
    assert await warehouse.adds_up()
    events = (await warehouse.events())[2:]
    updates = {body["sku"]: (body["available"], body["version"]) for kind, body in events if kind.endswith("updated")}
    assert updates == {"A": (7, 2), "B": (1, 2)}
    assert [kind for kind, _ in events] == ["inventory.updated", "inventory.updated", "inventory.reserved"]
    assert {line["sku"]: line["quantity"] for line in events[-1][1]["lines"]} == {"A": 3, "B": 5}


async def test_one_short_line_rejects_the_whole_order(warehouse: Any):
    """Nothing is touched, every short line is told, and the refusal is final even after a restock."""
    order_id = uuid4()
    await warehouse.fill({"A": 10, "B": 1})

    await warehouse.confirm(order_id, {"A": 1, "B": 2, "C": 1})
    await warehouse.fill({"B": 9, "C": 9})
    await warehouse.confirm(order_id, {"A": 1, "B": 2, "C": 1})

    assert await warehouse.available() == {"A": 10, "B": 9, "C": 9}
    assert await warehouse.state(order_id) == "rejected"
    rejections = [body for kind, body in await warehouse.events() if kind == "inventory.rejected"]
    assert [body["missing"] for body in rejections] == [
        [{"sku": "B", "requested": 2, "available": 1}, {"sku": "C", "requested": 1, "available": 0}]
    ]


async def test_many_orders_at_once_are_as_one_after_the_other(warehouse: Any):
    """In one transaction too, the first come is served, a repeat does nothing, and the ledger has every step."""
    ids = [uuid4() for _ in range(5)]
    wanted = [{"A": 4}, {"A": 4, "B": 1}, {"A": 4}, {"A": 2, "B": 3}, {"B": 1}]
    await warehouse.fill({"A": 10, "B": 5})
    await warehouse.confirm(ids[4], wanted[4])

    wishes = [Wish(order_id, uuid4(), units) for order_id, units in zip(ids, wanted, strict=True)]
    async with warehouse.db.transaction() as tx:
        await warehouse.stock.lock(tx, ["A", "B"])
        await warehouse.stock.reserve(tx, [*wishes, wishes[0]])

    assert [await warehouse.state(order_id) for order_id in ids] == [
        "reserved",
        "reserved",
        "rejected",
        "reserved",
        "reserved",
    ]
    assert await warehouse.available() == {"A": 0, "B": 0}
    assert await warehouse.adds_up()
    told = [body["order_id"] for kind, body in await warehouse.events() if kind in ANSWERS]
    assert told == [str(ids[4]), *map(str, ids[:4])]


async def test_repeats_do_nothing(warehouse: Any):
    """Old events that come again, also after the inbox forgot them, change no stock and publish nothing."""
    order_id = uuid4()
    await warehouse.fill({"A": 10})
    await warehouse.confirm(order_id, {"A": 3})
    await warehouse.confirm(order_id, {"A": 3})
    assert await warehouse.available() == {"A": 7}
    await warehouse.cancel(order_id, {"A": 3})
    before = await warehouse.events()

    await warehouse.cancel(order_id, {"A": 3})
    await warehouse.confirm(order_id, {"A": 3})

    assert await warehouse.available() == {"A": 10}
    assert await warehouse.state(order_id) == "released"
    assert await warehouse.events() == before
    assert await warehouse.adds_up()


async def test_a_cancellation_that_comes_first_leaves_a_tombstone(warehouse: Any):
    """The confirmation that follows finds the order void and takes nothing."""
    order_id = uuid4()
    await warehouse.fill({"A": 10})
    before = await warehouse.events()

    await warehouse.cancel(order_id, {"A": 3})
    await warehouse.confirm(order_id, {"A": 3})

    assert await warehouse.available() == {"A": 10}
    assert await warehouse.state(order_id) == "void"
    assert await warehouse.events() == before


async def test_a_rejected_order_has_nothing_to_give_back(warehouse: Any):
    """Its cancellation, which orders makes of the rejection, changes nothing."""
    order_id = uuid4()
    await warehouse.fill({"A": 1})
    await warehouse.confirm(order_id, {"A": 3})

    await warehouse.cancel(order_id, {"A": 3})

    assert await warehouse.available() == {"A": 1}
    assert await warehouse.state(order_id) == "rejected"


async def test_a_release_gives_back_what_the_ledger_says(warehouse: Any):
    """Not what the event says: what was taken is what comes back."""
    order_id = uuid4()
    await warehouse.fill({"A": 10, "B": 10})
    await warehouse.confirm(order_id, {"A": 3})

    await warehouse.cancel(order_id, {"A": 4, "B": 1})

    assert await warehouse.available() == {"A": 10, "B": 10}
    assert await warehouse.adds_up()


async def test_a_new_product_has_a_row_and_no_news(warehouse: Any):
    """Nothing is published until stock was set once; then also a zero is news, and creation again changes nothing."""
    created = ProductCreated(sku="A", name="A", category="c", price=Money.of("1.00"), available=True, version=1, at=AT)

    await warehouse.deliver(created)
    assert await warehouse.available() == {"A": 0}
    assert await warehouse.events() == []
    await warehouse.fill({"A": 0})
    await warehouse.deliver(created)

    [(kind, body)] = await warehouse.events()
    assert (kind, body["available"], body["version"]) == ("inventory.updated", 0, 1)


async def test_low_stock_is_told_once_on_the_way_down(warehouse: Any):
    """Crossing the reorder level is one event; selling on below it is none; filling up and falling again is another."""
    await warehouse.fill({"A": 10}, reorder_level=5)
    for quantity in (4, 1, 1):
        await warehouse.confirm(uuid4(), {"A": quantity})
    await warehouse.fill({"A": 20})
    await warehouse.confirm(uuid4(), {"A": 10})

    low = [body["available"] for kind, body in await warehouse.events() if kind == "inventory.low"]
    assert low == [5, 4]


async def test_the_ledger_cant_be_rewritten(warehouse: Any):
    """PostgreSQL itself refuses to change or take away a line."""
    await warehouse.fill({"A": 10})

    for statement in ("UPDATE ledger SET on_hand = 0", "DELETE FROM ledger", "TRUNCATE ledger"):
        with pytest.raises(DatabaseError, match="append-only"):
            await warehouse.db.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stock SET on_hand = -1",
        "UPDATE stock SET reserved = -1",
        "UPDATE stock SET reserved = 11",
        "UPDATE reservations SET state = 'lost'",
    ],
)
async def test_the_database_itself_keeps_the_stock_in_bounds(warehouse: Any, statement: str):
    """A defect of ours can't make stock negative or oversold: the constraint refuses."""
    await warehouse.fill({"A": 10})
    await warehouse.confirm(uuid4(), {"A": 1})

    with pytest.raises(CheckViolation):
        await warehouse.db.execute(statement)


async def test_never_oversold_when_everybody_wants_the_same(warehouse: Any):
    """Many orders over few products at once, each delivered twice, half cancelled: the ledger adds up, nobody waits
    in a circle, and what is reserved is exactly what reserved orders hold."""
    dice = random.Random(7)
    skus = ["A", "B", "C"]
    await warehouse.fill(dict.fromkeys(skus, 40))
    orders: list[tuple[UUID, dict[str, int]]] = [
        (uuid4(), {sku: dice.randint(1, 4) for sku in dice.sample(skus, dice.randint(1, 3))}) for _ in range(60)
    ]
    gate = asyncio.Semaphore(6)

    async def live(order_id: UUID, wanted: dict[str, int], *, cancelled: bool) -> None:
        async with gate:
            await warehouse.confirm(order_id, wanted)
            if cancelled:
                await warehouse.cancel(order_id, wanted)
            await warehouse.confirm(order_id, wanted)

    await asyncio.gather(*(live(*order, cancelled=n % 2 == 0) for n, order in enumerate(orders)))

    held = dict.fromkeys(skus, 0)
    for order_id, wanted in orders:
        if await warehouse.state(order_id) == "reserved":
            for sku, units in wanted.items():
                held[sku] += units
    assert await warehouse.available() == {sku: 40 - units for sku, units in held.items()}
    assert await warehouse.adds_up()
    assert min((await warehouse.available()).values()) >= 0


async def test_the_auditor_reads_what_is_held_and_what_came_back(warehouse: Any, order: Any):
    """Units by the ledger; a reservation that changes comes again."""
    first, second = uuid4(), uuid4()
    await warehouse.fill({"A": 5, "B": 5})
    await warehouse.confirm(first, {"A": 2, "B": 1})
    await warehouse.cancel(second, {"A": 1})
    [(_, held), (place, void)] = await warehouse.stock.audit((0, UUID(int=0)), limit=10)
    assert (held.order_id, held.state, held.reserved, held.released) == (first, "reserved", {"A": 2, "B": 1}, {})
    assert (void.order_id, void.state, void.reserved) == (second, "void", {})

    await warehouse.cancel(first, {"A": 2, "B": 1})
    [(_, back)] = await warehouse.stock.audit(place, limit=10)
    assert (back.state, back.released) == ("released", {"A": 2, "B": 1})
