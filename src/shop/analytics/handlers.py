"""Events in: each adds its facts to the generation that its consumer group fills."""

from datetime import datetime
from typing import Any

from backstay.db import Transaction
from backstay.messaging import Consumer, Locks
from shop.analytics.model import Facts, Line
from shop.analytics.service import Analytics
from shop.contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderEvent, OrderPaymentPending
from shop.contracts.payments import PaymentCaptured, PaymentEvent, PaymentRefunded


def register(consumer: Consumer, analytics: Analytics, *, generation: int) -> None:
    """Tell the consumer which event tells which facts."""

    async def lock(tx: Transaction, order_ids: list[str]) -> None:
        await analytics.lock(tx, generation, order_ids)

    locks = Locks(keys=_order_ids, take=lock)

    @consumer.on(OrderCreated, locks=locks)
    async def order_created(event: OrderCreated, tx: Transaction) -> None:
        await analytics.learn(tx, generation, _of_order(event, created_at=event.at))

    @consumer.on(OrderPaymentPending, locks=locks)
    async def order_payment_pending(event: OrderPaymentPending, tx: Transaction) -> None:
        await analytics.learn(tx, generation, _of_order(event, pending_at=event.at))

    @consumer.on(OrderConfirmed, locks=locks)
    async def order_confirmed(event: OrderConfirmed, tx: Transaction) -> None:
        await analytics.learn(tx, generation, _of_order(event, confirmed_at=event.at))

    @consumer.on(OrderCancelled, locks=locks)
    async def order_cancelled(event: OrderCancelled, tx: Transaction) -> None:
        await analytics.learn(tx, generation, _of_order(event, cancelled_at=event.at))

    @consumer.on(PaymentCaptured, locks=locks)
    async def payment_captured(event: PaymentCaptured, tx: Transaction) -> None:
        await analytics.learn(tx, generation, _of_payment(event, captured=event.amount))

    @consumer.on(PaymentRefunded, locks=locks)
    async def payment_refunded(event: PaymentRefunded, tx: Transaction) -> None:
        await analytics.learn(tx, generation, _of_payment(event, refunded=event.amount, refunded_at=event.at))


def _order_ids(event: Any) -> list[str]:
    return [str(event.order_id)]


def _of_order(event: OrderEvent, **times: datetime) -> Facts:
    lines = tuple(Line(line.sku, line.name, line.quantity, line.total) for line in event.lines)
    return Facts(order_id=event.order_id, customer_id=event.customer_id, total=event.total, lines=lines, **times)


def _of_payment(event: PaymentEvent, **facts: Any) -> Facts:
    return Facts(order_id=event.order_id, customer_id=event.customer_id, **facts)
