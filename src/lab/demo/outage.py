"""The failure story: payments dies, orders are taken all the same, and settle when it is back."""

import time
from typing import Any

from backstay.dev import registry
from backstay.dev.waiting import until
from backstay.dev.web import Reply, Web
from lab.client.user import Shopper
from lab.system.context import Stage

ORDERS = 8  # for each instance of orders: enough calls for its breaker's verdict, and some after it
SETTLE_TIMEOUT = 60.0  # seconds
POLL = 0.2  # seconds
ORDER = {"lines": [{"sku": "NW-001", "quantity": 1}], "payment_method": "pm_card_ok"}


class NotSettled(RuntimeError):
    """An order still waits for its payment although payments is back."""


async def show(stage: Stage, customer: Shopper) -> None:
    """Stop payments, place orders, show the breaker, start it again, and watch them settle."""
    screen = stage.screen
    screen.title("What if payments dies?", "no order is lost, nobody waits")
    with screen.step("payments is stopped"):
        await stage.stop("payments")
    try:
        placed = [await _place(customer) for _ in range(ORDERS * await _instances(stage))]
        _print(stage, placed)
        screen.say(await _breaker(stage))
    finally:
        with screen.step("payments is started again"):
            await stage.start("payments")
    with screen.step(f"all {len(placed)} orders settle by themselves") as step:
        states = await _settled(customer, [reply.body["id"] for reply in placed])
        step.text = f"all {len(placed)} orders settled by themselves: {', '.join(sorted(set(states)))}"
    moves = await _transitions(stage)
    screen.say(f"the breaker's events: {', '.join(move.replace('_TO_', ' → ') for move in moves[-6:]) or 'none'}")


async def _instances(stage: Stage) -> int:
    async with Web(stage.running.discovery) as discovery:
        return sum(i.app == "orders" for i in await registry.instances(discovery))


async def _place(customer: Shopper) -> Reply:
    reply = await customer.ask("POST", "/api/v1/orders", ORDER, key=f"demo-{time.time_ns()}")
    return reply.expect(202)


def _print(stage: Stage, placed: list[Reply]) -> None:
    rows = [
        (f"  order {number}", str(reply.status), reply.body["status"], f"{reply.took:.0f} ms")
        for number, reply in enumerate(placed, 1)
    ]
    stage.screen.rows(("  placed", "answer", "status", "after"), rows, right=(3,))


async def _breaker(stage: Stage) -> str:
    """Return the state of the breaker between orders and payments, as orders reports it."""
    async with Web(stage.running.discovery) as discovery:
        orders = [i for i in await registry.instances(discovery) if i.app == "orders"]
    breakers = []
    for instance in orders:
        async with Web(instance.address) as web:
            shown: dict[str, Any] = await web.get("/actuator/circuitbreakers")
        breakers.append(shown["circuitBreakers"]["payments"])
    breaker = max(breakers, key=lambda each: each["failedCalls"])
    return (
        f"circuit breaker orders → payments: {breaker['state']}, "
        f"{breaker['failedCalls']} calls failed, {breaker['notPermittedCalls']} refused without a try"
    )


async def _transitions(stage: Stage) -> list[str]:
    """Return the transitions of the breakers between orders and payments, the latest last."""
    async with Web(stage.running.discovery) as discovery:
        orders = [i for i in await registry.instances(discovery) if i.app == "orders"]
    told: list[dict[str, Any]] = []
    for instance in orders:
        async with Web(instance.address) as web:
            told += (await web.get("/actuator/circuitbreakerevents"))["circuitBreakerEvents"]
    moves = [event for event in told if event["type"] == "STATE_TRANSITION"]
    return [event["stateTransition"] for event in sorted(moves, key=lambda event: str(event["creationTime"]))]


async def _settled(customer: Shopper, orders: list[str]) -> list[str]:
    states: dict[str, str] = {}

    async def all_settled() -> bool:
        for order in (order for order in orders if order not in states):
            found = (await customer.get(f"/api/v1/orders/{order}"))["status"]
            if found not in ("created", "payment_pending"):
                states[order] = found
        return len(states) == len(orders)

    if not await until(all_settled, timeout=SETTLE_TIMEOUT, poll=POLL):
        waiting = ", ".join(order for order in orders if order not in states)
        raise NotSettled(f"after {SETTLE_TIMEOUT:g} s these still wait for their payment: {waiting}")
    return list(states.values())
