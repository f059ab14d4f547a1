"""Events in: products that appear, orders that take stock or give it back."""

from collections.abc import Sequence

from backstay.db import Transaction
from backstay.messaging import SHARED, Consumer, Locks
from shop.contracts.orders import OrderCancelled, OrderConfirmed, OrderEvent
from shop.contracts.products import ProductCreated
from shop.inventory.model import Wish
from shop.inventory.service import Stock


def register(consumer: Consumer, stock: Stock) -> None:
    """Register the handler of each event: the use case it leads to."""
    locks = Locks(keys=_skus, take=stock.lock)

    @consumer.on(ProductCreated, locks=SHARED)
    async def product_created(event: ProductCreated, tx: Transaction) -> None:
        await stock.create(tx, event.sku)

    @consumer.on_batch(OrderConfirmed, locks=locks)
    async def orders_confirmed(events: Sequence[OrderConfirmed], tx: Transaction) -> None:
        await stock.reserve(tx, [Wish(event.order_id, event.customer_id, _wanted(event)) for event in events])

    @consumer.on(OrderCancelled, locks=locks)
    async def order_cancelled(event: OrderCancelled, tx: Transaction) -> None:
        await stock.release(tx, event.order_id, event.customer_id)


def _skus(event: OrderEvent) -> list[str]:
    return [line.sku for line in event.lines]


def _wanted(event: OrderEvent) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for line in event.lines:
        wanted[line.sku] = wanted.get(line.sku, 0) + line.quantity
    return wanted
