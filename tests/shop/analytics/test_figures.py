"""Figures on a real PostgreSQL: the same whatever the order and number of deliveries."""

import asyncio
import random
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.service import Unprocessable
from shop.analytics.model import Funnel, Ranking
from shop.kernel import Money

ADA, EVE = UUID(int=1), UUID(int=2)
DAY = date(2026, 1, 10)


async def test_revenue_is_what_was_confirmed_and_stayed_so(desk: Any, story: Any):
    """A cancelled confirmation is taken off on its own day; what was never confirmed never counted."""
    await desk.tell(story(uuid4(), ADA, {"A": 2, "B": 1}), "created", "captured", "confirmed")
    await desk.tell(story(uuid4(), ADA, {"B": 5}), "created", "confirmed", "cancelled", "refunded")
    await desk.tell(story(uuid4(), EVE, {"B": 7}), "created", "cancelled")

    [total] = await desk.analytics.revenue()
    assert (total.orders, total.confirmed) == (2, Decimal("63.00"))
    assert (total.cancelled_orders, total.cancelled, total.net) == (1, Decimal("50.00"), Decimal("13.00"))
    days = await desk.analytics.revenue_by_day(since=DAY, until=DAY + timedelta(days=1))
    assert [(found.day, found.confirmed, found.cancelled) for found in days] == [
        (DAY, Decimal("63.00"), Decimal("0.00")),
        (DAY + timedelta(days=1), Decimal("0.00"), Decimal("50.00")),
    ]
    assert sum(found.net for found in days) == total.net


async def test_a_refund_of_an_unconfirmed_order_is_no_loss_of_revenue(desk: Any, story: Any):
    """Money that came late for a cancelled order comes and goes without touching revenue."""
    late = story(uuid4(), ADA, {"B": 1})
    await desk.tell(late, "created", "cancelled", "captured", "refunded")

    assert await desk.analytics.revenue() == []
    assert await desk.analytics.payments() == [(Money.of("10.00"), Money.of("10.00"))]
    assert (await desk.analytics.funnel()).refunded == 1


async def test_the_funnel_counts_every_stage_reached(desk: Any, story: Any):
    """An order counts in each stage that it ever reached, once."""
    await desk.tell(story(uuid4(), ADA, {"A": 1}), "created", "pending", "confirmed", "reserved")
    await desk.tell(
        story(uuid4(), ADA, {"A": 1}), "created", "confirmed", "rejected", "cancelled", "refunded", "refunded"
    )
    await desk.tell(story(uuid4(), EVE, {"A": 1}), "created", "created")

    assert await desk.analytics.funnel() == Funnel(
        created=3, payment_pending=1, confirmed=2, cancelled=1, refunded=1, reserved=1, rejected=1, completed=1
    )


async def test_top_products_are_ranked_by_units_or_revenue(desk: Any, story: Any):
    """Only orders that stayed confirmed count; equals follow by sku; pages join without a seam."""
    await desk.tell(story(uuid4(), ADA, {"A": 5, "B": 1, "C": 5}), "created", "confirmed")
    await desk.tell(story(uuid4(), EVE, {"B": 3}), "created", "confirmed")
    await desk.tell(story(uuid4(), EVE, {"C": 100}), "created", "confirmed", "cancelled")

    async def ranked(ranking: Ranking, limit: int) -> list[tuple[str, int, str]]:
        found: list[Any] = []
        after = None
        while page := await desk.analytics.top_products(ranking, after=after, limit=limit):
            found += page
            after = page[-1].place(ranking)
        return [(sales.sku, sales.units, str(sales.revenue.amount)) for sales in found]

    by_units = [("A", 5, "7.50"), ("C", 5, "0.05"), ("B", 4, "40.00")]
    assert [await ranked(Ranking.UNITS, limit) for limit in (1, 2, 10)] == [by_units] * 3
    assert await ranked(Ranking.REVENUE, 1) == [("B", 4, "40.00"), ("A", 5, "7.50"), ("C", 5, "0.05")]


async def test_customers_have_their_orders(desk: Any, story: Any):
    """Orders, those that stayed confirmed, and what they are worth, per customer."""
    await desk.tell(story(uuid4(), ADA, {"B": 1}), "created", "confirmed")
    await desk.tell(story(uuid4(), ADA, {"B": 2}), "created", "confirmed", "cancelled")
    await desk.tell(story(uuid4(), EVE, {"A": 1}), "created")

    found = await desk.analytics.customers(after=None, limit=10)
    assert [(sales.customer_id, sales.orders, sales.confirmed, str(sales.revenue)) for sales in found] == [
        (ADA, 2, 1, "10.00 USD"),
        (EVE, 1, 0, "0.00 USD"),
    ]
    assert [sales.customer_id for sales in await desk.analytics.customers(after=found[0].place, limit=10)] == [EVE]


async def test_no_order_of_deliveries_changes_a_figure(desk: Any, story: Any):
    """Events of many orders, shuffled across topics and some delivered twice, give the figures of the straight run."""
    lives = [
        ("created", "captured", "confirmed", "reserved"),
        ("created", "pending", "captured", "confirmed"),
        ("created", "captured", "confirmed", "cancelled", "refunded"),
        ("created", "cancelled"),
        ("created", "pending", "cancelled", "captured", "refunded"),
    ]
    dice = random.Random(11)
    stories = [
        (story(uuid4(), dice.choice([ADA, EVE]), {sku: dice.randint(1, 9) for sku in "ABC"[: n % 3 + 1]}, n % 4), life)
        for n, life in enumerate(lives * 6)
    ]

    async def figures() -> Any:
        by_day = await desk.analytics.revenue_by_day(since=DAY, until=DAY + timedelta(days=30))
        top = await desk.analytics.top_products(Ranking.UNITS, after=None, limit=100)
        customers = await desk.analytics.customers(after=None, limit=100)
        return (
            await desk.analytics.revenue(),
            by_day,
            await desk.analytics.payments(),
            top,
            customers,
            await desk.analytics.funnel(),
        )

    for each, life in stories:
        await desk.tell(each, *life)
    straight = await figures()
    await desk.db.execute("DELETE FROM orders")
    await desk.db.execute("DELETE FROM order_lines")
    deliveries = [(each, name) for each, life in stories for name in life]
    deliveries += dice.sample(deliveries, 30)
    dice.shuffle(deliveries)
    for each, name in deliveries:
        await desk.tell(each, name)

    assert await figures() == straight
    confirmed = [each for each, life in stories if "confirmed" in life and "cancelled" not in life]
    assert straight[0][0].net == sum(each.total.amount for each in confirmed)


@pytest.mark.parametrize(("since", "until"), [(DAY, DAY - timedelta(days=1)), (DAY - timedelta(days=366), DAY)])
async def test_a_range_of_days_has_its_limits(desk: Any, since: date, until: date):
    """Backwards or too long: refused with its parameter, not computed."""
    with pytest.raises(Unprocessable) as refused:
        await desk.analytics.revenue_by_day(since=since, until=until)

    assert [error.pointer for error in refused.value.errors] == ["/query/since"]


@pytest.mark.parametrize("until", [date.min, date.max, None])
async def test_any_day_can_be_the_last(desk: Any, until: date | None):
    """The default range never leaves the calendar."""
    assert await desk.analytics.revenue_by_day(since=None, until=until) == []


async def test_events_of_one_order_at_the_same_moment_all_count(desk: Any, story: Any):
    """Two partitions may bring facts of one order at once: nothing is lost, nobody waits in a circle."""
    stories = [story(uuid4(), ADA, {"A": 1, "B": 1}) for _ in range(10)]
    names = ("created", "captured", "confirmed", "reserved", "cancelled", "refunded")

    await asyncio.gather(*(desk.tell(each, name) for each in stories for name in names))

    funnel = await desk.analytics.funnel()
    assert (funnel.created, funnel.confirmed, funnel.reserved, funnel.cancelled, funnel.refunded) == (10,) * 5
    assert funnel.completed == 0
    assert (await desk.analytics.revenue())[0].net == 0


async def test_currencies_are_never_added_up(desk: Any, story: Any):
    """Each currency has figures of its own."""
    await desk.tell(story(uuid4(), ADA, {"B": 1}), "created", "confirmed")
    await desk.db.execute("UPDATE orders SET currency = 'EUR'")
    await desk.db.execute("UPDATE order_lines SET currency = 'EUR'")
    await desk.tell(story(uuid4(), ADA, {"B": 2}), "created", "confirmed")

    assert [(found.currency, found.net) for found in await desk.analytics.revenue()] == [
        ("EUR", Decimal("10.00")),
        ("USD", Decimal("20.00")),
    ]
    top = await desk.analytics.top_products(Ranking.UNITS, after=None, limit=10)
    assert [(sales.units, str(sales.revenue)) for sales in top] == [(2, "20.00 USD"), (1, "10.00 EUR")]
    both = await desk.analytics.customers(after=None, limit=1)
    both += await desk.analytics.customers(after=both[0].place, limit=1)
    assert [str(sales.revenue) for sales in both] == ["10.00 EUR", "20.00 USD"]


async def test_a_product_goes_by_its_newest_name(desk: Any, story: Any):
    """Orders freeze the name of their day; the figures show the last one."""
    await desk.tell(story(uuid4(), ADA, {"A": 1}, 0), "created", "confirmed")
    await desk.db.execute("UPDATE order_lines SET name = 'Old name'")
    await desk.tell(story(uuid4(), ADA, {"A": 1}, 3), "created", "confirmed")

    [sales] = await desk.analytics.top_products(Ranking.UNITS, after=None, limit=10)
    assert (sales.name, sales.orders, sales.units) == ("Product A", 2, 2)
