"""Events that orders listens to, one function each."""

from typing import Any

from backstay.db import Transaction
from backstay.messaging import SHARED, Consumer, Envelope, Locks
from shop.contracts.inventory import InventoryRejected, InventoryReserved, InventoryUpdated
from shop.contracts.notifications import NotificationSent
from shop.contracts.payments import PaymentCaptured, PaymentDeclined, PaymentRefunded
from shop.contracts.products import ProductCreated, ProductUpdated
from shop.orders.service import Orders


def register(consumer: Consumer, orders: Orders) -> None:
    """Have `orders` told of what happens elsewhere."""
    of_order: Locks[Any] = Locks(keys=lambda event: [str(event.order_id)], take=orders.lock_orders)
    of_product: Locks[Any] = Locks(keys=lambda event: [event.sku], take=orders.lock_products)
    of_stock: Locks[Any] = Locks(keys=lambda event: [event.sku], take=orders.lock_stock)

    @consumer.on(ProductCreated, locks=of_product)
    async def product_created(event: ProductCreated, tx: Transaction) -> None:
        await orders.product_changed(tx, event)

    @consumer.on(ProductUpdated, locks=of_product)
    async def product_updated(event: ProductUpdated, tx: Transaction) -> None:
        await orders.product_changed(tx, event)

    @consumer.on(InventoryUpdated, locks=of_stock)
    async def inventory_updated(event: InventoryUpdated, tx: Transaction) -> None:
        await orders.stock_changed(tx, event)

    @consumer.on(InventoryReserved, locks=SHARED)
    async def inventory_reserved(event: InventoryReserved, tx: Transaction, envelope: Envelope) -> None:
        await orders.stock_reserved(tx, event, envelope.id)

    @consumer.on(InventoryRejected, locks=of_order)
    async def inventory_rejected(event: InventoryRejected, tx: Transaction, envelope: Envelope) -> None:
        await orders.stock_rejected(tx, event, envelope.id)

    @consumer.on(PaymentCaptured, locks=of_order)
    async def payment_captured(event: PaymentCaptured, tx: Transaction, envelope: Envelope) -> None:
        await orders.payment_captured(tx, event, envelope.id)

    @consumer.on(PaymentDeclined, locks=of_order)
    async def payment_declined(event: PaymentDeclined, tx: Transaction, envelope: Envelope) -> None:
        await orders.payment_declined(tx, event, envelope.id)

    @consumer.on(PaymentRefunded, locks=of_order)
    async def payment_refunded(event: PaymentRefunded, tx: Transaction, envelope: Envelope) -> None:
        await orders.payment_refunded(tx, event, envelope.id)

    @consumer.on(NotificationSent, locks=SHARED)
    async def notification_sent(event: NotificationSent, tx: Transaction, envelope: Envelope) -> None:
        await orders.mail_sent(tx, event, envelope.id)
