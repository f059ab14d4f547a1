"""Analytics as a whole: topics in, figures out."""

from typing import Any
from uuid import UUID, uuid4

from backstay.testing import eventually
from shop.analytics.config import Settings
from shop.analytics.main import build

ADA = UUID(int=1)


async def test_orders_become_figures_and_a_rebuild_finds_the_same(
    database: str, calling: Any, broker: Any, publish: Any, story: Any
):
    """From the topics to the revenue over HTTP; after a rebuild over HTTP the figures are the same."""
    events = []
    for n in range(10):
        one = story(uuid4(), ADA, {"A": 2})
        events += [one.event(name) for name in ("created", "captured", "confirmed", "cancelled")[: 4 if n == 0 else 3]]
    async with calling(build(Settings(database_url=database)), broker) as api:
        await publish(*events)

        async def counted() -> bool:
            funnel = (await api.get("/analytics/funnel")).body
            return bool((funnel["confirmed"], funnel["cancelled"]) == (10, 1))

        await eventually(counted)
        before = (await api.get("/analytics/revenue")).body
        await api.ask("POST", "/analytics/rebuild")

        async def swapped() -> bool:
            newest = (await api.get("/analytics/generations")).body["items"][0]
            return bool((newest["generation"], newest["state"]) == (2, "current"))

        await eventually(swapped, timeout=20)
        after = (await api.get("/analytics/revenue")).body

    assert after == before
    assert after["totals"][0]["net"] == {"amount": "27.00", "currency": "USD"}


async def test_it_describes_itself(database: str, calling: Any):
    """OpenAPI knows every route, without a token."""
    async with calling(build(Settings(database_url=database))) as api:
        reply = await api.http.request("127.0.0.1", api.running.port, "GET", "/openapi.json", timeout=5.0)

    assert reply.status == 200
    assert b"/api/v1/analytics/top-products" in reply.body
