"""Orders and payments as they run: real HTTP between them, tokens, the pipeline, events through a broker in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.db import Database
from backstay.discovery import StaticRegistry
from backstay.http import HttpReply, HttpRequest, HttpServer
from backstay.ids import uuid7
from backstay.messaging import MemoryBroker
from backstay.outbox import Outbox
from backstay.service import Running, Service
from backstay.testing import armed, eventually
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer
from shop.contracts.inventory import InventoryRejected, InventoryUpdated, MissingLine
from shop.contracts.products import ProductCreated
from shop.kernel import Money
from shop.orders import main as orders_main
from shop.orders.clients import SCOPES
from shop.payments import main as payments_main

CUSTOMER = uuid7()
QUICK = {
    "RECONCILE_INTERVAL": "0.05",
    "COMPENSATE_INTERVAL": "0.05",
    "FIRST_CHECK": "2",
    "LAST_CHECK": "2",
    "STALE_INTERVAL": "0.05",
    "STALE_AFTER": "4",
    "SANDBOX_SLOW": "3",
    "PAYMENT_TIMEOUT": "1.5",
    "CHECKOUT_DEADLINE": "4",
    "PAYMENT_WAIT_OPEN": "0.5",
    "FETCH_INTERVAL": "1",
}


class Auth:
    """Keys and service tokens, as auth gives them."""

    def __init__(self) -> None:
        self.issuer = TokenIssuer(audience="shop")

    def __call__(self, request: HttpRequest) -> HttpReply:
        if request.method == "GET":
            return HttpReply(body=self.issuer.jwks, content_type="application/json")
        token = self.issuer.service_token("orders", scope=SCOPES, audience="payments")
        return HttpReply(body=json.dumps({"access_token": token, "expires_in": 600}).encode())


@dataclass
class Shop:
    """Two running services, a broker, and somebody who speaks for the others."""

    api: Api
    orders: Running
    payments: Service
    registry: StaticRegistry
    others: Others
    running_payments: AsyncExitStack

    async def order(self, method: str = "pm_card_ok", *, key: str | None = None, **more: Any) -> Any:
        body = {"lines": [{"sku": "P1", "quantity": 2}], "payment_method": method, **more}
        return await self.api.ask("POST", "/api/v1/orders", body, key=key or str(uuid4()))

    async def get(self, path: str) -> Any:
        return (await self.api.ask("GET", f"/api/v1/orders{path}")).json

    async def becomes(self, order_id: str, status: str) -> Any:
        async def is_so() -> Any:
            order = await self.get(f"/{order_id}")
            return order if order["status"] == status else None

        return await eventually(is_so, timeout=20)

    async def stop_payments(self) -> None:
        await self.running_payments.aclose()

    async def start_payments(self) -> None:
        running = await self.running_payments.enter_async_context(self.payments.running())
        self.registry.replace({"payments": [f"127.0.0.1:{running.port}"]})

    async def breaker(self) -> str:
        reply = await self.api.ask("GET", "/actuator/circuitbreakers", token=None)
        return str(reply.json["circuitBreakers"]["payments"]["state"])


class Others:
    """Publishes as catalog and inventory do, from an outbox of its own."""

    def __init__(self, db: Database, box: Outbox) -> None:
        self.db, self.box = db, box

    async def say(self, *events: Any) -> None:
        async with self.db.transaction() as tx:
            await self.box.append(tx, *events)


@pytest.fixture
def databases(postgres: Any) -> Any:
    names = [f"{name}_{uuid4().hex[:8]}" for name in ("orders", "payments", "others")]
    postgres.cluster.create_databases(dict.fromkeys(names, "secret"))
    yield {name.split("_")[0]: postgres.dsn(name, name, "secret") for name in names}
    postgres.cluster.drop_databases(names)


@pytest.fixture
async def shop(databases: dict[str, str]) -> AsyncIterator[Shop]:
    auth, broker, registry = Auth(), MemoryBroker(), StaticRegistry({})
    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(HttpServer(auth))
        common = {
            **QUICK,
            "TOKEN_ISSUER": auth.issuer.issuer,
            "JWKS_URL": f"http://127.0.0.1:{door.port}/jwks",
            "TOKEN_URL": f"http://127.0.0.1:{door.port}/token",
        }
        payments = payments_main.build(payments_main.settings({**common, "DATABASE_URL": databases["payments"]}))
        orders = orders_main.build(
            orders_main.settings(
                {**common, "DATABASE_URL": databases["orders"], "CLIENT_ID": "orders", "CLIENT_SECRET": "s"}
            )
        )
        for service in (payments, orders):
            service.broker, service.registry = broker, registry
        db = Database("others", dsn=databases["others"])
        box = Outbox(db)
        await stack.enter_async_context(db)
        await stack.enter_async_context(box.relay(broker))
        others = Others(db, box)
        await others.say(product())
        running_payments = await stack.enter_async_context(AsyncExitStack())
        running = await stack.enter_async_context(orders.running())
        api = await stack.enter_async_context(
            Api(running.port, token=auth.issuer.token(str(CUSTOMER), scope="orders:read orders:write"))
        )
        it = Shop(api, running, payments, registry, others, running_payments)
        await it.start_payments()
        await eventually(lambda: ready(api))
        await eventually(lambda: priced(databases["orders"]))
        await eventually(lambda: running.tokens["payments"].ready)
        yield it


def product() -> ProductCreated:
    return ProductCreated(
        sku="P1",
        name="Chai",
        category="Beverages",
        price=Money.of("18.00"),
        available=True,
        version=1,
        at=datetime.now(UTC),
    )


async def ready(api: Api) -> bool:
    return (await api.ask("GET", "/health/ready", token=None)).status == 200


async def priced(dsn: str) -> bool:
    async with Database("reader", dsn=dsn) as db:
        return bool(await db.fetchval("SELECT count(*) FROM products"))


async def test_an_order_goes_all_the_way(shop: Shop) -> None:
    """Checkout, charge and capture; the timeline knows both services; pages and detail show the order."""
    placed = await shop.order(expected_total={"amount": "36.00", "currency": "USD"})

    assert placed.status == 201
    order_id = placed.json["id"]
    assert placed.headers["location"] == f"/api/v1/orders/{order_id}"
    assert await shop.get(f"/{order_id}") == placed.json
    page = await shop.get("?limit=1")
    assert (page["items"], page["next"]) == ([placed.json], None)

    async def told() -> Any:
        items = (await shop.get(f"/{order_id}/timeline"))["items"]
        return [item["what"] for item in items] if len(items) >= 3 else None

    assert set(await eventually(told)) == {"order created", "order confirmed", "payment captured"}


async def test_a_decline_and_a_retried_error(shop: Shop) -> None:
    """402 with the reason; a provider that fails once costs a retry, not the order."""
    declined = await shop.order("pm_card_insufficient_funds")
    assert (declined.status, declined.slug, declined.json["reason"]) == (402, "payment-declined", "insufficient_funds")

    assert (await shop.order("pm_card_error_then_ok")).status == 201


async def test_slow_payments_settle_later(shop: Shop) -> None:
    """202 in time, confirmed by the event or the reconciler, and captured once."""
    pending = await shop.order("pm_card_slow")

    assert (pending.status, pending.json["status"]) == (202, "payment_pending")
    await shop.becomes(pending.json["id"], "confirmed")


async def test_the_failure_story(shop: Shop) -> None:
    """Payments dies: 202, the breaker opens, orders are answered fast; it comes back: everything settles."""
    await shop.stop_payments()
    pending = [await shop.order() for _ in range(8)]
    assert {reply.status for reply in pending} == {202}
    assert await shop.breaker() == "OPEN"
    metrics = (await shop.api.ask("GET", "/metrics", token=None)).body.decode()
    assert 'backstay_circuit_breaker_state{name="payments",of="open"} 1.0' in metrics

    cancelled = pending.pop().json["id"]
    assert (await shop.api.ask("POST", f"/api/v1/orders/{cancelled}/cancel")).json["status"] == "cancelled"

    await shop.start_payments()
    for reply in pending:
        await shop.becomes(reply.json["id"], "confirmed")

    async def closed() -> bool:
        return await shop.breaker() == "CLOSED"

    await eventually(closed)

    async def undone() -> bool:
        items = (await shop.get(f"/{cancelled}/timeline"))["items"]
        return any(item["what"] == "payment undone" for item in items)

    await eventually(undone)


async def test_a_rejected_order_is_refunded(shop: Shop) -> None:
    """Inventory says no: cancelled, refunded, and the compensation is closed."""
    order_id = (await shop.order()).json["id"]
    missing = (MissingLine(sku="P1", requested=2, available=0),)
    await shop.others.say(
        InventoryRejected(order_id=UUID(order_id), customer_id=CUSTOMER, missing=missing, at=datetime.now(UTC)),
        InventoryUpdated(sku="P1", on_hand=0, available=0, version=1, at=datetime.now(UTC)),
    )
    await shop.becomes(order_id, "cancelled")

    async def refunded() -> bool:
        items = (await shop.get(f"/{order_id}/timeline"))["items"]
        return {"stock rejected", "payment refunded"} <= {item["what"] for item in items}

    await eventually(refunded)

    async def short() -> bool:
        return bool((await shop.order()).slug == "out-of-stock")

    await eventually(short)


BAD: list[tuple[Any, int, str | None]] = [
    (b"{", 400, None),
    ({"lines": [{"sku": "P1", "quantity": "2"}], "payment_method": "pm_card_ok"}, 422, "/lines/0/quantity"),
    ({"lines": [{"sku": "P1", "quantity": 10_001}], "payment_method": "pm_card_ok"}, 422, "/lines/0/quantity"),
    ({"lines": [{"sku": "NO", "quantity": 1}], "payment_method": "pm_card_ok"}, 422, "/lines/0/sku"),
    ({"lines": [], "payment_method": "pm_card_ok"}, 422, "/lines"),
    ({"lines": [{"sku": "P1", "quantity": 1}], "payment_method": "gold"}, 422, "/payment_method"),
    ({"payment_method": "pm_card_ok"}, 422, "/lines"),
]


async def test_bad_orders_are_refused_by_pointer(shop: Shop) -> None:
    """Malformed is 400, wrong is 422 with the field; nothing is stored."""
    for body, status, pointer in BAD:
        reply = await shop.api.ask("POST", "/api/v1/orders", body, key=str(uuid4()))
        assert reply.status == status, body
        assert pointer is None or pointer in reply.pointers
    assert (await shop.get(""))["items"] == []


async def test_what_is_ours_stays_ours(shop: Shop) -> None:
    """No key, no token, somebody else's order, a price in the body: nothing of it works."""
    body = {"lines": [{"sku": "P1", "quantity": 1}], "payment_method": "pm_card_ok"}
    assert (await shop.api.ask("POST", "/api/v1/orders", body)).slug == "idempotency-key-missing"
    assert (await shop.api.ask("POST", "/api/v1/orders", body, token=None, key="k")).status == 401

    priced = {**body, "lines": [{"sku": "P1", "quantity": 1, "unit_price": {"amount": "0.01"}}], "total": "0.01"}
    refused = await shop.api.ask("POST", "/api/v1/orders", priced, key="k")
    assert (refused.status, refused.pointers) == (422, ["/lines/0/unit_price", "/total"])
    placed = await shop.api.ask("POST", "/api/v1/orders", body, key="k")
    assert (placed.status, placed.json["total"]["amount"]) == (201, "18.00")

    for path in ("", "/timeline"):
        assert (await shop.api.ask("GET", f"/api/v1/orders/{uuid4()}{path}")).status == 404


async def test_a_customer_can_not_reach_payments(shop: Shop) -> None:
    """The internal routes take tokens of services that name payments, and no others."""
    instance = shop.registry.choose("payments")
    async with Api(instance.port, token=shop.api.token) as payments:
        for method, path in (("POST", "/payments"), ("GET", f"/payments/{uuid4()}")):
            assert (await payments.ask(method, path, {})).status == 401
        assert (await payments.ask("POST", "/payments", {}, token=None)).status == 401


@pytest.mark.parametrize("point", ["payments.charge.after-intent-commit", "payments.charge.before-result-commit"])
async def test_an_error_in_payments_costs_a_retry_or_a_while(shop: Shop, point: str) -> None:
    """Whatever breaks in the middle of a charge: one order, one capture."""
    with armed(f"{point}=error*1"):
        reply = await shop.order()
        assert reply.status in (201, 202)
        await shop.becomes(reply.json["id"], "confirmed")


async def test_checkouts_at_once_with_one_key(shop: Shop) -> None:
    """Over HTTP: one order, the same bytes for all that got an answer."""
    replies = await asyncio.gather(*(shop.order(key="same") for _ in range(5)))

    done = [reply for reply in replies if reply.status in (201, 202)]
    assert {reply.slug for reply in replies if reply not in done} <= {"request-in-progress"}
    assert len({reply.body for reply in done}) == 1
    assert len((await shop.get(""))["items"]) == 1


async def test_the_document_has_every_end_of_a_checkout(shop: Shop) -> None:
    """201, 202 with the order, 402 as a problem, and a read that may be 304."""
    paths = (await shop.api.ask("GET", "/openapi.json", token=None)).json["paths"]
    checkout = paths["/api/v1/orders"]["post"]["responses"]

    order = {"$ref": "#/components/schemas/OrderView"}
    for status in ("201", "202"):
        assert checkout[status]["content"]["application/json"]["schema"] == order
    assert "application/problem+json" in checkout["402"]["content"]
    assert {"400", "401", "403", "409", "413", "415", "422", "429", "503", "504"} < checkout.keys()
    assert "304" in paths["/api/v1/orders/{order_id}"]["get"]["responses"]
