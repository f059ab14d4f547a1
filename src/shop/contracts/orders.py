"""Events of orders: the life of an order, each with all that a consumer needs to act on it alone."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import msgspec

from backstay.messaging import Event
from shop.kernel import Money


class OrderLine(msgspec.Struct, frozen=True, kw_only=True):
    """One product of an order, its price frozen at checkout."""

    sku: str
    name: str
    quantity: int
    unit_price: Money
    total: Money
    product_version: int


class OrderEvent(Event):
    """The common part of an order's events; `version` counts the order's changes from 1."""

    order_id: UUID
    customer_id: UUID
    lines: tuple[OrderLine, ...]
    total: Money
    version: int
    at: datetime


class OrderCreated(OrderEvent, topic="orders", type="order.created", key="order_id"):
    """The order was saved; nothing is charged yet."""

    payment_method: str


class OrderPaymentPending(OrderEvent, topic="orders", type="order.payment-pending", key="order_id"):
    """Payments gave no final answer in time; the order settles by itself later."""

    reason: str


class OrderConfirmed(OrderEvent, topic="orders", type="order.confirmed", key="order_id"):
    """The payment was captured."""

    payment_id: UUID | None = None


class OrderCancelled(OrderEvent, topic="orders", type="order.cancelled", key="order_id"):
    """The order ended; `was_confirmed` is true if it had been paid (then a refund follows)."""

    reason: str
    was_confirmed: bool = False


OrderStatus = Literal["created", "payment_pending", "confirmed", "cancelled"]


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order as its customer sees it; `reason` is set while it waits, and once it was cancelled."""

    id: UUID
    customer_id: UUID
    status: OrderStatus
    lines: tuple[OrderLine, ...]
    total: Money
    payment_method: str
    payment_id: UUID | None
    reason: str | None
    version: int
    created_at: datetime
    updated_at: datetime


class TimelineEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One step of an order: when, which service, what happened, and whatever else is worth knowing."""

    at: datetime
    service: str
    what: str
    details: dict[str, Any]
