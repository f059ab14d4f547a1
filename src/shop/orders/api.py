"""Orders over HTTP, for customers; and the state of the circuit breakers, for operators."""

from typing import Annotated, Any
from uuid import UUID

import msgspec

from backstay.resilience import Actuator, CircuitBreaker
from backstay.resilience.endpoints import circuit_breakers
from backstay.service import (
    TAGGED,
    Answer,
    Feed,
    Forbidden,
    IdempotencyKey,
    Page,
    Principal,
    Route,
    decode_cursor,
    encode_cursor,
    get,
    post,
    version_tag,
)
from shop.contracts import audit as audited
from shop.contracts.orders import OrderView, TimelineEntry
from shop.orders.events import fact
from shop.orders.model import NewOrder, Status
from shop.orders.service import Orders

Limit = Annotated[int, msgspec.Meta(ge=1, le=100)]


CHECKOUT_BYTES = 64 * 1024
"""Ten times what a hundred lines take."""
CHECKOUT = {
    202: "No answer from payments in time; the order settles by itself",
    402: "Declined; the order is cancelled",
}


def routes(orders: Orders) -> list[Route]:
    """Return the routes of orders, under `/api/v1`."""

    @post("/orders", scope="orders:write", status=201, answers=CHECKOUT, max_body=CHECKOUT_BYTES)
    async def checkout(body: NewOrder, who: Principal, key: IdempotencyKey) -> Answer[OrderView]:
        """Place an order and pay for it. 201 confirmed, 202 settles later, 402 declined; prices are ours."""
        return await orders.checkout(_customer(who), body, key)

    @get("/orders", scope="orders:read")
    async def page(
        who: Principal, cursor: str | None = None, status: Status | None = None, limit: Limit = 20
    ) -> Page[OrderView]:
        """My orders, newest first."""
        place = decode_cursor(cursor, UUID)
        before = place[0] if place else None
        items, last = await orders.page(_customer(who), before=before, status=status, limit=limit)
        return Page(items, encode_cursor(last) if last else None)

    @get("/orders/{order_id}", scope="orders:read", answers=TAGGED)
    async def find(order_id: UUID, who: Principal) -> Answer[OrderView]:
        """One of my orders; its ETag is its version, so that waiting for it to settle costs 304s."""
        order = await orders.find(_customer(who), order_id)
        return Answer(order, headers={"ETag": version_tag(order.version)})

    @get("/orders/{order_id}/timeline", scope="orders:read")
    async def timeline(order_id: UUID, who: Principal) -> Page[TimelineEntry]:
        """The timeline of one of my orders, with steps of every service."""
        return Page(await orders.timeline(_customer(who), order_id))

    @post("/orders/{order_id}/cancel", scope="orders:write")
    async def cancel(order_id: UUID, who: Principal) -> OrderView:
        """Give one of my orders up; what was paid goes back. Repeating it changes nothing."""
        return await orders.cancel(_customer(who), order_id)

    return [checkout, page, find, timeline, cancel]


def internal(orders: Orders) -> list[Route]:
    """Routes for other services of the shop; the gateway leads to none of them."""

    @get("/internal/audit", scope="audit:read", internal=True, hidden=True)
    async def audit(since: str | None = None, limit: audited.Limit = audited.LIMIT) -> Feed[audited.OrderFact]:
        """Orders in the order in which they changed last, for the auditor."""
        after = decode_cursor(since, audited.Change, UUID, name="since") or (0, UUID(int=0))
        found = await orders.audit(after, limit=limit + 1)
        return Feed.of([(place, fact(order)) for place, order in found], since=since, limit=limit)

    return [audit]


def actuator(breakers: list[CircuitBreaker]) -> list[Route]:
    """Routes beside the API, for operators; the gateway leads to none of them."""

    @get("/actuator/circuitbreakers", public=True, hidden=True)
    async def show() -> dict[str, Any]:
        """Return the circuit breakers, as Resilience4j's actuator shows them."""
        return circuit_breakers(breakers)

    last = Actuator(lambda: breakers)

    @get("/actuator/circuitbreakerevents", public=True, hidden=True)
    async def events() -> dict[str, Any]:
        """The latest events of the circuit breakers."""
        return last.events()

    return [show, events]


def _customer(who: Principal) -> UUID:
    try:
        return UUID(who.id)
    except ValueError:
        raise Forbidden("only a customer has orders") from None
