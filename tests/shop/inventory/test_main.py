"""Inventory as a whole: topics in, stock, outbox, relay, topic out."""

from typing import Any
from uuid import UUID, uuid4

from backstay.testing import eventually
from shop.inventory.config import Settings
from shop.inventory.main import build


async def test_orders_take_stock_and_give_it_back(
    database: str, calling: Any, broker: Any, publish: Any, read: Any, order: Any
):
    """A confirmed order is reserved, or rejected if stock is short; a cancelled one gives its units back."""
    first, second = uuid4(), uuid4()
    async with calling(build(Settings(database_url=database)), broker) as api:
        await api.ask("PUT", "/stock/A", {"on_hand": 5})
        await publish(order.confirmed(first, {"A": 3}))
        await eventually(lambda: kinds(read, "inventory.reserved") == [str(first)])
        await publish(order.confirmed(second, {"A": 3}))
        await eventually(lambda: kinds(read, "inventory.rejected") == [str(second)])
        await publish(order.cancelled(first, {"A": 3}), order.cancelled(second, {"A": 3}))
        await eventually(lambda: updates(read)[-1:] == [(3, 5)])
        ready = await api.http.request("127.0.0.1", api.running.port, "GET", "/health/ready", timeout=5.0)

    assert updates(read) == [(1, 5), (2, 2), (3, 5)]
    assert ready.status == 200


async def test_many_orders_in_a_batch_share_transactions_and_stay_right(
    database: str, calling: Any, broker: Any, publish: Any, read: Any, order: Any
):
    """Hundreds of orders over the same few products, all at once: exactly the stock is given away."""
    wanted = {uuid4(): "CBA"[n % 3 :] for n in range(200)}
    async with calling(build(Settings(database_url=database)), broker) as api:
        for sku in ("A", "B", "C"):
            await api.ask("PUT", f"/stock/{sku}", {"on_hand": 100})
        await publish(*(order.confirmed(one, dict.fromkeys(skus, 1)) for one, skus in wanted.items()))
        await eventually(
            lambda: len(kinds(read, "inventory.reserved")) + len(kinds(read, "inventory.rejected")) == 200, timeout=30
        )
        stock = {item["sku"]: item for item in await api.all("/stock")}

    reserved = [UUID(order_id) for order_id in kinds(read, "inventory.reserved")]
    for sku, item in stock.items():
        assert item["reserved"] == sum(sku in wanted[one] for one in reserved) <= 100


def kinds(read: Any, kind: str) -> list[str]:
    return [body["order_id"] for found, body in read("inventory") if found == kind]


def updates(read: Any) -> list[tuple[int, int]]:
    return [(body["version"], body["available"]) for kind, body in read("inventory") if kind == "inventory.updated"]


async def test_it_describes_itself(database: str, calling: Any):
    """OpenAPI knows every route, without a token."""
    async with calling(build(Settings(database_url=database))) as api:
        reply = await api.http.request("127.0.0.1", api.running.port, "GET", "/openapi.json", timeout=5.0)

    assert reply.status == 200
    assert b"/api/v1/stock/{sku}/restock" in reply.body
