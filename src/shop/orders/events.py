"""An order as others see it: its events, its view, and the answer to its checkout."""

from typing import Any

from backstay.asgi.answers import encode_json
from backstay.http.problems import MEDIA_TYPE
from backstay.service import Answer, Conflict, Problem
from backstay.telemetry import current
from shop.contracts.audit import OrderFact
from shop.contracts.orders import (
    OrderCancelled,
    OrderConfirmed,
    OrderCreated,
    OrderEvent,
    OrderLine,
    OrderPaymentPending,
    OrderView,
)
from shop.orders.model import Audited, Line, Order, Reason, Status

PATH = "/api/v1/orders"
COME_BACK = "5"  # seconds after which an unsettled order may look different


def published(before: Order | None, after: Order) -> OrderEvent:
    """Return the event of a step of an order's life; `before` is None when it begins."""
    common = _common(after)
    match after.status:
        case Status.CREATED:
            return OrderCreated(**common, payment_method=after.payment_method)
        case Status.PAYMENT_PENDING:
            return OrderPaymentPending(**common, reason=after.reason or "")
        case Status.CONFIRMED:
            return OrderConfirmed(**common, payment_id=after.payment_id)
        case Status.CANCELLED:
            confirmed = before is not None and before.status is Status.CONFIRMED
            return OrderCancelled(**common, reason=after.reason or "", was_confirmed=confirmed)


def view(order: Order) -> OrderView:
    """Return the order as its customer sees it."""
    return OrderView(
        id=order.id,
        customer_id=order.customer_id,
        status=order.status.value,
        lines=_lines(order.lines),
        total=order.total,
        payment_method=order.payment_method,
        payment_id=order.payment_id,
        reason=order.reason,
        version=order.version,
        created_at=order.created_at,
        updated_at=order.updated_at,
    )


def fact(order: Audited) -> OrderFact:
    """Return the order as the auditor sees it."""
    return OrderFact(
        order_id=order.id, status=order.status.value, total=order.total, units=order.units, reason=order.reason
    )


def answer(order: Order, note: str | None) -> Answer[OrderView]:
    """Return the answer to the checkout of an order that has just left `created`, now and to every repeat."""
    location = {"Location": f"{PATH}/{order.id}"}
    match order.status:
        case Status.CONFIRMED:
            return Answer(view(order), 201, location)
        case Status.PAYMENT_PENDING:
            return Answer(view(order), 202, {**location, "Retry-After": COME_BACK})
        case Status.CANCELLED if order.reason == Reason.DECLINED:
            detail = f"The payment was declined: {note or 'no reason was given'}."
            return _refusal(
                Problem(402, "payment-declined", "Payment declined", detail, order_id=order.id, reason=note)
            )
        case _:
            detail = f"The order was cancelled before it was paid: {order.reason}."
            return _refusal(Conflict("order-cancelled", detail, order_id=order.id, reason=order.reason))


def _refusal(problem: Problem) -> Answer[OrderView]:
    trace = current()
    body = problem.body(instance=PATH, trace_id=trace.trace_id if trace else "")
    return Answer(encode_json(body), problem.status, {"Content-Type": MEDIA_TYPE})


def _common(order: Order) -> dict[str, Any]:
    return {
        "order_id": order.id,
        "customer_id": order.customer_id,
        "lines": _lines(order.lines),
        "total": order.total,
        "version": order.version,
        "at": order.updated_at,
    }


def _lines(lines: tuple[Line, ...]) -> tuple[OrderLine, ...]:
    return tuple(
        OrderLine(
            sku=line.sku,
            name=line.name,
            quantity=line.quantity,
            unit_price=line.unit_price,
            total=line.total,
            product_version=line.product_version,
        )
        for line in lines
    )
