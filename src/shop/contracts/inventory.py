"""Events of inventory: what is in stock, and whether an order got its share of it."""

from datetime import datetime
from uuid import UUID

import msgspec

from backstay.messaging import Event


class InventoryUpdated(Event, topic="inventory", type="inventory.updated", key="sku"):
    """The stock of a product changed; `available` is what an order can still get."""

    sku: str
    on_hand: int
    available: int
    version: int
    at: datetime


class ReservedLine(msgspec.Struct, frozen=True, kw_only=True):
    """Units of a product that an order holds."""

    sku: str
    quantity: int


class MissingLine(msgspec.Struct, frozen=True, kw_only=True):
    """A product of which there was not enough."""

    sku: str
    requested: int
    available: int


class InventoryReserved(Event, topic="inventory", type="inventory.reserved", key="order_id"):
    """All lines of a confirmed order were taken from the stock."""

    order_id: UUID
    customer_id: UUID
    lines: tuple[ReservedLine, ...]
    at: datetime


class InventoryRejected(Event, topic="inventory", type="inventory.rejected", key="order_id"):
    """At least one line of a confirmed order was not in stock; nothing was taken."""

    order_id: UUID
    customer_id: UUID
    missing: tuple[MissingLine, ...]
    at: datetime


class InventoryLow(Event, topic="inventory", type="inventory.low", key="sku"):
    """A product fell to its reorder level or below."""

    sku: str
    available: int
    reorder_level: int
    at: datetime
