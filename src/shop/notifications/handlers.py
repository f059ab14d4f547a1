"""Events in: each one that concerns a customer becomes a message."""

from collections.abc import Sequence
from typing import Any

from backstay.db import Transaction
from backstay.ids import uuid7
from backstay.messaging import SHARED, Consumer, Envelope
from shop.contracts.orders import OrderCancelled, OrderConfirmed, OrderEvent, OrderPaymentPending
from shop.contracts.payments import PaymentRefunded
from shop.contracts.users import UserRegistered, UserRegistrationRepeated
from shop.notifications.model import Kind, Notice
from shop.notifications.service import Notifications


def register(consumer: Consumer, notifications: Notifications) -> None:
    """Register the handler of each event: the message it leads to."""

    @consumer.on(UserRegistered, locks=SHARED)
    async def user_registered(event: UserRegistered, tx: Transaction, envelope: Envelope) -> None:
        await notifications.learn_address(tx, event.user_id, email=event.email, name=event.name, at=event.at)
        notice = Notice(id=uuid7(), event_id=envelope.id, kind=Kind.WELCOME, customer_id=event.user_id)
        await notifications.notify(tx, notice)

    @consumer.on(UserRegistrationRepeated, locks=SHARED)
    async def user_registration_repeated(event: UserRegistrationRepeated, tx: Transaction, envelope: Envelope) -> None:
        notice = Notice(id=uuid7(), event_id=envelope.id, kind=Kind.REGISTERED_AGAIN, customer_id=event.user_id)
        await notifications.notify(tx, notice)

    @consumer.on(OrderPaymentPending, locks=SHARED)
    async def order_payment_pending(event: OrderPaymentPending, tx: Transaction, envelope: Envelope) -> None:
        await notifications.notify(tx, _about_order(Kind.PAYMENT_PENDING, event, envelope))

    @consumer.on_batch(OrderConfirmed)
    async def orders_confirmed(
        events: Sequence[OrderConfirmed], tx: Transaction, envelopes: Sequence[Envelope]
    ) -> None:
        told = zip(events, envelopes, strict=True)
        await notifications.notify(tx, *(_about_order(Kind.CONFIRMED, event, envelope) for event, envelope in told))

    @consumer.on(OrderCancelled, locks=SHARED)
    async def order_cancelled(event: OrderCancelled, tx: Transaction, envelope: Envelope) -> None:
        facts = {"reason": event.reason, "was_confirmed": event.was_confirmed}
        await notifications.order_cancelled(tx, _about_order(Kind.CANCELLED, event, envelope, **facts), event.reason)

    @consumer.on(PaymentRefunded, locks=SHARED)
    async def payment_refunded(event: PaymentRefunded, tx: Transaction, envelope: Envelope) -> None:
        notice = Notice(
            id=uuid7(),
            event_id=envelope.id,
            kind=Kind.REFUNDED,
            customer_id=event.customer_id,
            order_id=event.order_id,
            facts={"amount": str(event.amount)},
        )
        await notifications.notify(tx, notice)


def _about_order(kind: Kind, event: OrderEvent, envelope: Envelope, **more: Any) -> Notice:
    lines = [{"name": line.name, "quantity": line.quantity, "total": str(line.total)} for line in event.lines]
    return Notice(
        id=uuid7(),
        event_id=envelope.id,
        kind=kind,
        customer_id=event.customer_id,
        order_id=event.order_id,
        facts={"lines": lines, "total": str(event.total), **more},
    )
