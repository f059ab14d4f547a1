"""Orders and payments are killed at each side of each commit and call of the checkout, and everything settles."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from backstay.testing import eventually
from shop.orders.config import FAULT_POINTS as ORDERS
from shop.payments.config import FAULT_POINTS as PAYMENTS

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("healed"),
]

Audit = Callable[[list[str]], Coroutine[Any, Any, dict[str, str]]]
STALE = "payments.provider.after-charge=error*1"
"""An answer of the provider that nobody heard: the payment is stale, and somebody has to find out."""


@pytest.mark.parametrize("point", ORDERS)
async def test_orders_dies(world, customer, audit: Audit, point: str) -> None:
    """Whatever orders was at, its next life ends it: paid once, reserved once, or given back."""
    await _survive(world, customer, audit, "orders", point)


@pytest.mark.parametrize("point", PAYMENTS)
async def test_payments_dies(world, customer, audit: Audit, point: str) -> None:
    """Whatever payments was at, the provider's ledger and our books agree in the end."""
    if "find" in point:
        world.arm("payments", STALE, f"{point}=kill")
    await _survive(world, customer, audit, "payments", point)


async def _survive(world, customer, audit: Audit, service: str, point: str) -> None:
    """Arm the point, live a small life that passes it, and compare all books."""
    kept = (await customer.order()).expect(201).body["id"]
    given_up = (await customer.order()).expect(201).body["id"]
    if "find" not in point:
        world.arm(service, f"{point}=kill")
    for method in ("pm_card_ok", "pm_card_slow"):
        (await customer.order(method)).expect(201, 202)
    for order in (given_up, customer.orders[-1]):
        (await customer.cancel(order)).expect(200, 202)

    await eventually(lambda: point in world.fired(service), timeout=30)
    states = await audit(customer.orders)
    assert states[kept] == "confirmed"
    assert states[given_up] == "cancelled"
    assert states[customer.orders[2]] == "confirmed"
