"""Payments: its events, and the bodies of the calls that orders makes."""

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from backstay.messaging import Event
from shop.kernel import Money

PaymentStatus = Literal["processing", "captured", "declined", "voided", "refunded"]


class ChargeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Charge an order once; repeated with the same order id and amount it gives the same payment."""

    order_id: UUID
    customer_id: UUID
    amount: Money
    method: str


class ReversalRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Why a payment is voided or refunded."""

    reason: str


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as its caller sees it. A void before any charge has no `payment_id` and no `amount` yet."""

    order_id: UUID
    status: PaymentStatus
    payment_id: UUID | None = None
    amount: Money | None = None
    reason: str | None = None


class PaymentEvent(Event):
    """The common part of a payment's events."""

    payment_id: UUID
    order_id: UUID
    customer_id: UUID
    amount: Money
    at: datetime


class PaymentCaptured(PaymentEvent, topic="payments", type="payment.captured", key="order_id"):
    """The provider took the money."""


class PaymentDeclined(PaymentEvent, topic="payments", type="payment.declined", key="order_id"):
    """The provider refused, for good."""

    reason: str


class PaymentRefunded(PaymentEvent, topic="payments", type="payment.refunded", key="order_id"):
    """The provider gave the money back."""

    reason: str
