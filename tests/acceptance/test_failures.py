"""What breaks between services must not break an order."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from backstay.testing import eventually

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("healed"),
]

Audit = Callable[[list[str]], Coroutine[Any, Any, dict[str, str]]]
DEADLINE = 3.5  # seconds: the checkout's three, and the way there


async def test_orders_are_taken_while_payments_is_dead(world, customer, audit: Audit, clock) -> None:
    """Every checkout answers 202 in time, the breaker opens, and all settle once payments is back."""
    await world.tell("stop", "payments")
    for _ in range(8):
        started = clock()
        (await customer.order()).expect(202)
        assert clock() - started < DEADLINE
    async with world.instance("orders") as orders:
        breaker = (await orders.get("/actuator/circuitbreakers"))["circuitBreakers"]["payments"]
    assert breaker["state"] in ("OPEN", "HALF_OPEN")
    assert breaker["notPermittedCalls"] > 0
    await world.tell("start", "payments")

    assert set((await audit(customer.orders)).values()) == {"confirmed"}


async def test_orders_are_taken_while_payments_is_slow(world, customer, audit: Audit, clock) -> None:
    """A service that answers too late costs its customers nothing but the confirmation by mail."""
    world.arm("payments", "payments.charge.before-intent-commit=delay:5")
    started = clock()
    replies = await asyncio.gather(*(customer.order() for _ in range(6)))

    assert clock() - started < DEADLINE + 1
    assert {reply.status for reply in replies} <= {201, 202}
    assert 202 in {reply.status for reply in replies}
    world.disarm("payments")
    assert set((await audit(customer.orders)).values()) == {"confirmed"}


async def test_orders_settle_while_payments_flaps(world, customer, audit: Audit) -> None:
    """Half of all answers lost: nothing is charged twice and nothing forgotten."""
    world.arm("payments", "payments.charge.before-result-commit=fail:50", "payments.provider.before-charge=fail:30")
    replies = [await customer.order() for _ in range(10)]
    assert {reply.status for reply in replies} <= {201, 202}
    world.disarm("payments")

    assert set((await audit(customer.orders)).values()) == {"confirmed"}


async def test_a_killed_payments_is_back_by_itself(world, customer, audit: Audit) -> None:
    """Between its death and its return orders wait; then they settle."""
    restarts = await world.restarts("payments")
    await world.tell("kill", "payments")
    (await customer.order()).expect(201, 202)

    assert set((await audit(customer.orders)).values()) == {"confirmed"}
    assert await world.restarts("payments") == restarts + 1


async def test_an_order_cancelled_while_payments_is_dead_costs_nothing(world, customer, audit: Audit) -> None:
    """The wish to cancel is kept until payments can carry it out."""
    await world.tell("stop", "payments")
    order = (await customer.order()).expect(202).body["id"]
    (await customer.cancel(order)).expect(200, 202)
    await world.tell("start", "payments")

    assert await audit([order]) == {order: "cancelled"}


async def test_orders_are_taken_while_the_broker_is_away(world, customer, admin, audit: Audit) -> None:
    """Checkout needs no broker; what it caused is published when the broker is back."""
    world.proxy.shut()
    try:
        for _ in range(3):
            await customer.buy()
        mails = len(world.mails(customer.shopper.email))
        async with world.instance("orders") as orders:
            assert (await orders.call("GET", "/health/live")).status == 200
    finally:
        world.proxy.open()

    assert set((await audit(customer.orders)).values()) == {"confirmed"}
    await eventually(lambda: len(world.mails(customer.shopper.email)) >= mails + 3, timeout=60)


async def test_inventory_catches_up_after_it_was_dead(world, customer, audit: Audit) -> None:
    """Confirmed orders wait for their reservation; none is forgotten, none reserved twice."""
    await world.tell("stop", "inventory")
    for _ in range(3):
        await customer.buy()
    await world.tell("start", "inventory")

    assert set((await audit(customer.orders)).values()) == {"confirmed"}


async def test_mails_are_sent_after_notifications_was_dead(world, customer) -> None:
    """A mail late is better than none."""
    await world.tell("stop", "notifications")
    order = await customer.buy()
    await world.tell("start", "notifications")

    async def sent() -> bool:
        notes = await customer.shopper.every(f"/api/v1/notifications?order_id={order}")
        return [(note["kind"], note["state"]) for note in notes] == [("confirmed", "sent")]

    await eventually(sent, timeout=60, interval=0.1)


async def test_the_registry_may_be_away(world, customer, audit: Audit) -> None:
    """Everybody keeps the last list; a registry that starts empty fills itself."""
    await world.tell("stop", "discovery")
    for _ in range(3):
        await customer.buy()
    await world.tell("start", "discovery")
    await customer.buy()

    assert set((await audit(customer.orders)).values()) == {"confirmed"}
    await world.up("orders", "payments", "gateway")


async def test_tokens_are_good_while_auth_is_away(world, customer) -> None:
    """Whoever is logged in can go on ordering."""
    await world.tell("stop", "auth")
    try:
        (await customer.order()).expect(201, 202)
    finally:
        await world.tell("start", "auth")


@pytest.mark.apache
async def test_a_killed_broker_loses_nothing(world, customer, audit: Audit) -> None:
    """Apache Kafka dies by kill -9 and is started again: every event arrives."""
    if world.running.kafka_flavor != "apache":
        pytest.skip("the embedded broker keeps nothing: its death ends the system")
    await customer.buy()
    await world.tell("kill", "kafka")
    for _ in range(3):
        await customer.buy()

    assert set((await audit(customer.orders)).values()) == {"confirmed"}


def test_logs_are_lines_of_json(world) -> None:
    """Every line of every service can be read by a machine."""
    import json

    from shop import topology

    for service in topology.SERVICES:
        lines = (Path(world.home.logs) / f"{service.name}.log").read_text().splitlines()
        assert lines
        for line in lines:
            assert json.loads(line)["level"], line
