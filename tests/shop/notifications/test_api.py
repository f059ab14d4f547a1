"""Notifications over HTTP, on a real PostgreSQL."""

from typing import Any
from uuid import UUID, uuid4

from shop.notifications.config import Settings
from shop.notifications.main import build

ADA, EVE = UUID(int=1), UUID(int=2)


async def test_customers_see_what_was_sent_to_them_and_nothing_else(office: Any, database: str, calling: Any):
    """Newest first, page by page, by order if asked; other people's messages don't exist."""
    orders = [uuid4() for _ in range(3)]
    await office.register(ADA)
    await office.register(EVE, "eve@example.org")
    for order in orders:
        await office.confirm(ADA, order)
    await office.notifications.send_due()
    await office.refund(ADA, orders[0])

    async with calling(build(Settings(database_url=database))) as api:
        mine = await api.all("/notifications?limit=2", who=ADA)
        about = await api.all(f"/notifications?order_id={orders[0]}", who=ADA)
        hers = await api.all("/notifications", who=EVE)

    assert [item["kind"] for item in mine] == ["refunded", "confirmed", "confirmed", "confirmed", "welcome"]
    assert [item["order_id"] for item in mine[1:4]] == [str(order) for order in reversed(orders)]
    assert [(item["kind"], item["state"], item["sent_at"] is None) for item in about] == [
        ("refunded", "pending", True),
        ("confirmed", "sent", False),
    ]
    assert [item["kind"] for item in hers] == ["welcome"]


async def test_who_has_no_token_or_is_no_customer_sees_nothing(database: str, calling: Any):
    """401 without a token, 403 without the scope or without being a customer."""
    async with calling(build(Settings(database_url=database))) as api:
        assert (await api.get("/notifications", who=None)).status == 401
        assert (await api.get("/notifications")).status == 403
        assert (await api.get("/notifications", who="some-service")).status == 403
