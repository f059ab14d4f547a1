"""Every service does its part, seen through the gateway as a customer and as an admin."""

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID, uuid4

import pytest

from backstay.dev.registry import instances
from backstay.dev.web import Web
from backstay.testing import eventually
from shop import topology

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

Audit = Callable[[list[str]], Coroutine[Any, Any, dict[str, str]]]


async def test_anybody_may_look_at_the_catalog(web) -> None:
    """Products are listed, filtered, searched, sorted and paged without a token."""
    first = await web.get("/api/v1/products?limit=50")
    second = await web.get(f"/api/v1/products?limit=50&cursor={first['next']}")

    skus = [item["sku"] for item in first["items"] + second["items"]]
    assert skus[:77] == sorted(skus)[:77]
    assert len(set(skus)) == len(skus) >= 77
    chai = await web.get("/api/v1/products/NW-001")
    assert (chai["name"], chai["price"]) == ("Chai", {"amount": "18.00", "currency": "USD"})
    found = await web.get("/api/v1/products?q=chai")
    assert "NW-001" in [item["sku"] for item in found["items"]]
    beverages = await web.get("/api/v1/products?category=Beverages&available=true")
    assert {item["category"] for item in beverages["items"]} == {"Beverages"}
    assert (await web.call("GET", "/api/v1/products/NW-999")).status == 404


async def test_an_order_goes_its_whole_way(world, customer, admin, audit: Audit) -> None:
    """One checkout: paid, reserved, mailed, counted, and its timeline tells it."""
    before = await admin.get("/api/v1/stock/NW-002")
    figures = await admin.get("/api/v1/analytics/funnel")
    reply = (await customer.order("pm_card_ok", {"sku": "NW-002", "quantity": 2})).expect(201)

    order = reply.body
    assert UUID(order["id"]).version == 7
    assert order["total"] == {"amount": "38.00", "currency": "USD"}
    assert reply.headers["location"] == f"/api/v1/orders/{order['id']}"
    assert await audit([order["id"]]) == {order["id"]: "confirmed"}
    assert (await admin.get("/api/v1/stock/NW-002"))["available"] == before["available"] - 2

    async def told() -> bool:
        timeline = await customer.shopper.get(f"/api/v1/orders/{order['id']}/timeline")
        return {"stock reserved", "mail sent"} <= {entry["what"] for entry in timeline["items"]}

    await eventually(told, timeout=60)
    await eventually(lambda: len(world.mails(customer.shopper.email)) >= 2, timeout=60)

    async def counted() -> bool:
        return bool((await admin.get("/api/v1/analytics/funnel"))["confirmed"] > figures["confirmed"])

    await eventually(counted, timeout=60)
    notes = await customer.shopper.every("/api/v1/notifications")
    assert {"welcome", "confirmed"} <= {note["kind"] for note in notes}
    assert order["id"] in [item["id"] for item in await customer.shopper.every("/api/v1/orders")]


@pytest.mark.parametrize("method", ["pm_card_declined", "pm_card_insufficient_funds"])
async def test_a_declined_card_is_402(customer, audit: Audit, method: str) -> None:
    """The order ends cancelled, nothing is kept, nothing reserved, and a repeat is told the same."""
    key = uuid4().hex
    first = (await customer.order(method, key=key)).expect(402)
    again = (await customer.order(method, key=key)).expect(402)

    assert again.body == first.body
    assert set((await audit(customer.orders)).values()) == {"cancelled"}


async def test_a_slow_payment_is_202_and_settles(customer, audit: Audit, clock) -> None:
    """Checkout answers inside its deadline; the money arrives later."""
    started = clock()
    reply = (await customer.order("pm_card_slow")).expect(202)

    assert clock() - started < 5  # its deadline of 3 s, and the way there on a busy machine
    assert reply.body["status"] == "payment_pending"
    assert "retry-after" in reply.headers
    assert await audit(customer.orders) == {reply.body["id"]: "confirmed"}


async def test_a_provider_that_fails_once_costs_nothing(customer, audit: Audit) -> None:
    """An error of the provider is retried; the order is paid once."""
    reply = (await customer.order("pm_card_error_then_ok")).expect(201, 202)

    assert await audit(customer.orders) == {reply.body["id"]: "confirmed"}


async def test_cancelling_gives_money_and_stock_back(world, customer, admin, audit: Audit) -> None:
    """A confirmed order may be cancelled, once and again; its customer hears of it."""
    order = await customer.buy({"sku": "NW-003", "quantity": 1})
    await audit([order])
    held = (await admin.get("/api/v1/stock/NW-003"))["available"]
    (await customer.cancel(order)).expect(200, 202)

    assert await audit([order]) == {order: "cancelled"}

    async def returned() -> bool:
        return bool((await admin.get("/api/v1/stock/NW-003"))["available"] == held + 1)

    await eventually(returned, timeout=60)

    async def mailed() -> bool:
        notes = await customer.shopper.every(f"/api/v1/notifications?order_id={order}")
        return {"cancelled", "refunded"} <= {note["kind"] for note in notes if note["state"] == "sent"}

    await eventually(mailed, timeout=60)


async def test_what_is_not_there_cannot_be_ordered(customer, admin) -> None:
    """Short stock is 409 and leaves nothing behind; unknown and discontinued products are 422 with their pointer."""
    stock = await admin.get("/api/v1/stock/NW-004")
    body = {"sku": "NW-004", "quantity": stock["available"] + 1}
    refused = (await customer.order("pm_card_ok", body)).expect(409)

    assert refused.body["type"].endswith("out-of-stock")
    unknown = (await customer.order("pm_card_ok", {"sku": "NW-999", "quantity": 1})).expect(422)
    assert unknown.body["errors"][0]["pointer"].startswith("/lines/0")
    discontinued = (await customer.order("pm_card_ok", {"sku": "NW-005", "quantity": 1})).expect(422)
    assert discontinued.body["errors"][0]["pointer"].startswith("/lines/0")
    assert await customer.shopper.every("/api/v1/orders") == []


async def test_rivals_for_the_last_unit_share_it_fairly(new_customer, sell, audit: Audit) -> None:
    """Stock never goes below nothing: one gets it, the others get their money back."""
    sku = f"RARE-{uuid4().hex[:6].upper()}"
    await sell(sku, price="5.00", units=1)
    customers = [await new_customer() for _ in range(3)]
    for customer in customers:
        await eventually(lambda customer=customer: _orderable(customer, sku), timeout=60)
    orders = [order for customer in customers for order in customer.orders]

    states = await audit(orders)
    assert sorted(states.values())[-1] == "confirmed"
    assert list(states.values()).count("confirmed") == 1


async def _orderable(customer, sku: str) -> bool:
    reply = await customer.order("pm_card_ok", {"sku": sku, "quantity": 1})
    return reply.status in (201, 202, 409)


async def test_prices_follow_the_catalog_and_orders_keep_theirs(customer, admin, sell) -> None:
    """A new price counts for new orders, a total that was promised is checked, an old order stays as it was."""
    sku = f"NEW-{uuid4().hex[:6].upper()}"
    await sell(sku, price="10.00", units=100)
    await eventually(lambda: _orderable(customer, sku), timeout=60)
    old = customer.orders[0]
    change = {"price": {"amount": "11.00", "currency": "USD"}}
    (await admin.ask("PATCH", f"/api/v1/products/{sku}", change)).expect(200)

    async def dearer() -> bool:
        reply = await customer.order("pm_card_ok", {"sku": sku, "quantity": 1})
        return bool(reply.expect(201, 202).body["total"]["amount"] == "11.00")

    await eventually(dearer, timeout=60)
    assert (await customer.shopper.get(f"/api/v1/orders/{old}"))["total"]["amount"] == "10.00"
    body = {
        "lines": [{"sku": sku, "quantity": 1}],
        "payment_method": "pm_card_ok",
        "expected_total": {"amount": "10.00", "currency": "USD"},
    }
    changed = (await customer.once(body, key=uuid4().hex)).expect(409)
    assert changed.body["type"].endswith("price-changed")


async def test_stock_is_counted_and_filled_up(admin, sell) -> None:
    """An admin sets, restocks once per key, and reads the ledger that adds up."""
    sku = f"TIN-{uuid4().hex[:6].upper()}"
    await sell(sku, price="1.00", units=3)
    key = uuid4().hex
    for _ in range(2):
        (await admin.ask("POST", f"/api/v1/stock/{sku}/restock", {"quantity": 4}, key=key)).expect(200, 201)

    assert (await admin.get(f"/api/v1/stock/{sku}"))["on_hand"] == 7
    ledger = await admin.every(f"/api/v1/stock/{sku}/ledger")
    assert sum(line["on_hand"] for line in ledger) == 7


async def test_analytics_counts_what_is_confirmed_and_can_start_anew(admin, customer) -> None:
    """Figures are the same after a rebuild from the first event."""
    await customer.buy()

    async def quiet() -> bool:
        funnel = await admin.get("/api/v1/analytics/funnel")
        return bool(funnel["confirmed"] > 0)

    await eventually(quiet, timeout=60)
    before = await admin.get("/api/v1/analytics/funnel")
    built = (await admin.ask("POST", "/api/v1/analytics/rebuild")).expect(202).body["generation"]

    async def swapped() -> bool:
        generations = (await admin.get("/api/v1/analytics/generations"))["items"]
        return any(each["generation"] == built and each["state"] == "current" for each in generations)

    await eventually(swapped, timeout=60, interval=0.2)
    after = await admin.get("/api/v1/analytics/funnel")
    assert after["confirmed"] >= before["confirmed"]
    assert (await admin.get("/api/v1/analytics/top-products"))["items"]


@pytest.mark.parametrize(
    "service", ["auth", "catalog", "orders", "payments", "inventory", "notifications", "analytics", "auditor"]
)
async def test_every_service_shows_itself(world, service: str) -> None:
    """Health says what is missing, metrics and info are there, and the documents describe the API."""
    async with world.instance(service) as web:
        assert (await web.call("GET", "/health/live")).status == 200
        assert (await web.call("GET", "/health/ready")).status == 200
        assert "# TYPE" in (await web.call("GET", "/metrics")).expect(200).body
        assert (await web.get("/info"))["name"] == service
        assert (await web.get("/openapi.json"))["openapi"].startswith("3.")
        assert "<html" in (await web.call("GET", "/docs")).expect(200).body.lower()


@pytest.mark.parametrize("service", ["auth", "catalog", "orders", "inventory", "notifications", "analytics", "auditor"])
async def test_every_public_service_is_documented_at_the_gateway(web, service: str) -> None:
    """A client developer needs one address."""
    document = await web.get(f"/api/v1/openapi/{service}.json")

    assert any(path.startswith("/api/v1/") for path in document["paths"])
    assert "<html" in (await web.call("GET", f"/docs/{service}", accept="text/html")).expect(200).body.lower()


async def test_the_registry_shows_everybody(world) -> None:
    """One row for each service, and a page for people."""
    async with Web(world.running.discovery) as discovery:
        shown = {instance.app for instance in await instances(discovery) if instance.status == "UP"}
        page = await discovery.call("GET", "/", accept="text/html")
    assert shown == {service.name for service in topology.SERVICES} - {"discovery"}
    assert "orders" in page.body.lower()
