"""Analytics over HTTP, on a real PostgreSQL."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.service import encode_cursor
from shop.analytics.config import Settings
from shop.analytics.main import build

ADA = UUID(int=1)
SALE = {"amount": "13.00", "currency": "USD"}
NOTHING = {"amount": "0.00", "currency": "USD"}


async def test_admins_read_the_figures(desk: Any, story: Any, database: str, calling: Any):
    """Revenue, payments, top products, customers and the funnel, with money as amount and currency."""
    await desk.tell(story(uuid4(), ADA, {"A": 2, "B": 1}), "created", "captured", "confirmed")

    async with calling(build(Settings(database_url=database))) as api:
        revenue = (await api.get("/analytics/revenue?since=2026-01-01&until=2026-01-31")).body
        funnel = (await api.get("/analytics/funnel")).body
        units = await api.all("/analytics/top-products?limit=1")
        money = await api.all("/analytics/top-products?by=revenue&limit=1")
        customers = await api.all("/analytics/customers?limit=1")

    worth = {"orders": 1, "confirmed": SALE, "cancelled_orders": 0, "cancelled": NOTHING, "net": SALE}
    assert revenue["totals"] == [{"day": None, **worth}]
    assert revenue["days"] == [{"day": "2026-01-10", **worth}]
    assert revenue["payments"] == [{"captured": SALE, "refunded": NOTHING}]
    assert (funnel["created"], funnel["confirmed"], funnel["completed"]) == (1, 1, 1)
    assert [(item["sku"], item["units"]) for item in units] == [("A", 2), ("B", 1)]
    assert [item["sku"] for item in money] == ["B", "A"]
    assert customers == [{"customer_id": str(ADA), "orders": 1, "confirmed": 1, "revenue": SALE}]


async def test_a_rebuild_is_begun_once(database: str, calling: Any):
    """202 with the new generation; 409 while it is being built."""
    async with calling(build(Settings(database_url=database))) as api:
        begun = await api.ask("POST", "/analytics/rebuild")
        again = await api.ask("POST", "/analytics/rebuild")
        listed = await api.all("/analytics/generations")

    assert (begun.status, begun.body["generation"], begun.body["state"]) == (202, 2, "building")
    assert (again.status, again.slug) == (409, "rebuild-running")
    assert [(found["generation"], found["state"]) for found in listed] == [(2, "building"), (1, "current")]


@pytest.mark.parametrize(("who", "status"), [(None, 401), (ADA, 403)])
async def test_figures_are_the_admins(database: str, calling: Any, who: Any, status: int):
    """Customers see none of it and rebuild nothing."""
    paths = ["revenue", "top-products", "customers", "funnel", "generations"]
    async with calling(build(Settings(database_url=database))) as api:
        asked = [(await api.get(f"/analytics/{path}", who=who)).status for path in paths]
        asked.append((await api.ask("POST", "/analytics/rebuild", who=who)).status)

    assert asked == [status] * 6


async def test_a_bad_question_is_answered_precisely(database: str, calling: Any):
    """422 with the query parameter that is wrong."""
    bad = {
        "revenue?since=yesterday": "/query/since",
        "revenue?since=2020-01-01&until=2026-01-01": "/query/since",
        "top-products?by=colour": "/query/by",
        "top-products?limit=0": "/query/limit",
        "customers?cursor=abc": "/query/cursor",
        f"top-products?cursor={encode_cursor('1e999999', 'A', 'USD')}": "/query/cursor",
        f"top-products?cursor={encode_cursor('1', chr(0), 'USD')}": "/query/cursor",
    }
    async with calling(build(Settings(database_url=database))) as api:
        refused = {path: await api.get(f"/analytics/{path}") for path in bad}

    assert {path: (reply.status, reply.pointers) for path, reply in refused.items()} == {
        path: (422, [pointer]) for path, pointer in bad.items()
    }
