"""Events that orders listens to, one function each."""

from collections.abc import Sequence
from typing import Any

from backstay.db import Transaction
from backstay.messaging import Consumer, Envelope, Locks
from shop.contracts.inventory import InventoryRejected, InventoryReserved, InventoryUpdated
from shop.contracts.notifications import NotificationSent
from shop.contracts.payments import PaymentCaptured, PaymentDeclined, PaymentRefunded
from shop.contracts.products import ProductCreated, ProductUpdated
from shop.orders.service import Orders


def register(consumer: Consumer, orders: Orders) -> None:
    """Register the handlers of events from other services."""
    of_order: Locks[Any] = Locks(keys=lambda event: [str(event.order_id)], take=orders.lock_orders)
    of_product: Locks[Any] = Locks(keys=lambda event: [event.sku], take=orders.lock_products)
    of_open_order: Locks[Any] = Locks(keys=lambda event: [str(event.order_id)], take=orders.lock_open_orders)
    of_stock: Locks[Any] = Locks(keys=_skus, take=orders.lock_stock)

    @consumer.on(ProductCreated, locks=of_product)
    async def product_created(event: ProductCreated, tx: Transaction) -> None:
        await orders.product_changed(tx, event)

    @consumer.on(ProductUpdated, locks=of_product)
    async def product_updated(event: ProductUpdated, tx: Transaction) -> None:
        await orders.product_changed(tx, event)

    @consumer.on_batch(InventoryUpdated, InventoryReserved, locks=of_stock)
    async def stock_told(
        events: Sequence[InventoryUpdated | InventoryReserved], tx: Transaction, envelopes: Sequence[Envelope]
    ) -> None:
        await orders.stock_told(tx, events, [envelope.id for envelope in envelopes])

    @consumer.on(InventoryRejected, locks=of_order)
    async def inventory_rejected(event: InventoryRejected, tx: Transaction, envelope: Envelope) -> None:
        await orders.stock_rejected(tx, event, envelope.id)

    @consumer.on_batch(PaymentCaptured, locks=of_open_order)
    async def payments_captured(
        events: Sequence[PaymentCaptured], tx: Transaction, envelopes: Sequence[Envelope]
    ) -> None:
        await orders.payments_captured(tx, events, [envelope.id for envelope in envelopes])

    @consumer.on(PaymentDeclined, locks=of_order)
    async def payment_declined(event: PaymentDeclined, tx: Transaction, envelope: Envelope) -> None:
        await orders.payment_declined(tx, event, envelope.id)

    @consumer.on(PaymentRefunded, locks=of_order)
    async def payment_refunded(event: PaymentRefunded, tx: Transaction, envelope: Envelope) -> None:
        await orders.payment_refunded(tx, event, envelope.id)

    @consumer.on_batch(NotificationSent)
    async def mails_sent(events: Sequence[NotificationSent], tx: Transaction, envelopes: Sequence[Envelope]) -> None:
        await orders.mails_sent(tx, events, [envelope.id for envelope in envelopes])


def _skus(event: InventoryUpdated | InventoryReserved) -> list[str]:
    return [event.sku] if isinstance(event, InventoryUpdated) else []
