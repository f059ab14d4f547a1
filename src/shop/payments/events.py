"""A payment as others see it: its events and its view."""

from datetime import datetime
from typing import Any

from shop.contracts.audit import PaymentFact, ProviderFact
from shop.contracts.payments import (
    PaymentCaptured,
    PaymentDeclined,
    PaymentEvent,
    PaymentRefunded,
    PaymentStatus,
    PaymentView,
)
from shop.payments.model import Audited, LedgerEntry, Payment, Status

SEEN_AS: dict[Status, PaymentStatus] = {
    Status.PROCESSING: "processing",
    Status.CAPTURED: "captured",
    Status.REFUNDING: "processing",  # not final yet: whoever waits for the refund asks again later
    Status.DECLINED: "declined",
    Status.VOIDED: "voided",
    Status.REFUNDED: "refunded",
}


def published(before: Payment, after: Payment, at: datetime) -> PaymentEvent | None:
    """Return the event of a step of a payment's life; a void has none, for nothing was ever taken."""
    match before.status, after.status:
        case Status.PROCESSING, Status.CAPTURED | Status.REFUNDING:
            return PaymentCaptured(**_common(after, at))
        case Status.PROCESSING, Status.DECLINED:
            return PaymentDeclined(**_common(after, at), reason=after.reason or "declined")
        case Status.REFUNDING | Status.CAPTURED, Status.REFUNDED:
            return PaymentRefunded(**_common(after, at), reason=after.reason or "refunded")
        case _:
            return None


def view(payment: Payment) -> PaymentView:
    """Return the payment as its caller sees it."""
    return PaymentView(
        order_id=payment.order_id,
        status=SEEN_AS[payment.status],
        payment_id=payment.id if payment.amount is not None else None,
        amount=payment.amount,
        reason=payment.reason,
    )


def fact(payment: Audited) -> PaymentFact:
    """Return the payment as the auditor sees it."""
    return PaymentFact(
        order_id=payment.order_id, payment_id=payment.id, status=payment.status.value, amount=payment.amount
    )


def entry(found: LedgerEntry) -> ProviderFact:
    """Return an entry of the provider's ledger as the auditor sees it."""
    return ProviderFact(entry=found.entry.value, id=found.key, charge=found.charge, amount=found.amount, at=found.at)


def _common(payment: Payment, at: datetime) -> dict[str, Any]:
    return {
        "payment_id": payment.id,
        "order_id": payment.order_id,
        "customer_id": payment.customer_id,
        "amount": payment.amount,
        "at": at,
    }
