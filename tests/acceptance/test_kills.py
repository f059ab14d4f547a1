"""Orders and payments are killed at each side of each commit and call of the checkout, and everything settles."""

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import pytest

from backstay.testing import eventually
from shop.orders.config import FAULT_POINTS as ORDERS
from shop.payments.config import FAULT_POINTS as PAYMENTS

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("kills"),
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("healed"),
]

Audit = Callable[[list[str]], Coroutine[Any, Any, dict[str, str]]]
STALE = "payments.provider.after-charge=error*1"
"""An answer of the provider that nobody heard: the payment is stale, and somebody has to find out."""

REFUNDS = ("payments.refund.before-intent-commit", "payments.refund.after-intent-commit")


@pytest.mark.parametrize("point", ORDERS)
async def test_orders_dies(world, customer, audit: Audit, point: str) -> None:
    """Whatever orders was at, its next life ends it: paid once, reserved once, or given back."""
    await _survive(world, customer, audit, "orders", point)


@pytest.mark.parametrize("point", [point for point in PAYMENTS if point not in REFUNDS])
async def test_payments_dies(world, customer, audit: Audit, point: str) -> None:
    """Whatever payments was at, the provider's ledger and our books agree in the end."""
    await _survive(world, customer, audit, "payments", point)


@pytest.mark.parametrize("point", REFUNDS)
async def test_payments_dies_when_asked_for_a_refund(world, customer, sell, audit: Audit, point: str) -> None:
    """What was sold twice is given back once, also when payments dies over it."""
    sku = f"ONCE-{uuid4().hex[:6].upper()}"
    await sell(sku, price="7.00", units=1)
    await eventually(lambda: _knows(world, sku), timeout=30)
    await world.tell("stop", "inventory")  # so that nobody hears of the first before the second
    for _ in range(2):
        await customer.buy({"sku": sku, "quantity": 1})
    world.arm("payments", f"{point}=kill")
    await world.tell("start", "inventory")

    await eventually(lambda: point in world.fired("payments"), timeout=30)
    assert sorted((await audit(customer.orders)).values()) == ["cancelled", "confirmed"]


async def _survive(world, customer, audit: Audit, service: str, point: str) -> None:
    """Arm the point, live a small life that passes it, and compare all books."""
    kept, given_up = [await customer.buy() for _ in range(2)]
    world.arm(service, f"{point}=kill", *([STALE] if "find" in point else []))
    paid = (await customer.order()).expect(201, 202).body["id"]
    (await customer.cancel(given_up)).expect(200, 202)
    if "cancel" in point and service == "payments":  # something to stop while the provider is at it
        slow = (await customer.order("pm_card_slow")).expect(202).body["id"]
        (await customer.cancel(slow)).expect(200, 202)

    await eventually(lambda: point in world.fired(service), timeout=30)
    states = await audit(customer.orders)
    assert (states[kept], states[given_up], states[paid]) == ("confirmed", "cancelled", "confirmed")


async def _knows(world, sku: str) -> bool:
    async with world.database("orders") as book:
        return bool(await book.fetchval("SELECT true FROM products JOIN stock USING (sku) WHERE sku = $1", sku))
