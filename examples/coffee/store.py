"""Orders in PostgreSQL."""

from uuid import UUID

from backstay.db import Queries, Transaction
from backstay.ids import uuid7
from coffee.model import NewOrder, Order, Stock

sql = Queries.load(__package__)


async def save(tx: Transaction, new: NewOrder, stock: Stock, guest: str) -> Order:
    """Save a new order."""
    order = Order(uuid7(), new.drink, "placed", stock.left, version=1)
    await tx.execute(sql.save_order, order.id, guest, order.drink, order.status, order.beans_left, order.version)
    return order


async def mark_brewing(tx: Transaction, order_id: UUID) -> None:
    """The order is being made."""
    await tx.execute(sql.mark_brewing, order_id)
