"""From changes of the stock to the events that others follow."""

from collections.abc import Iterable
from datetime import datetime
from uuid import UUID

from backstay.messaging import Event
from shop.contracts.audit import ReservationFact
from shop.contracts.inventory import (
    InventoryLow,
    InventoryRejected,
    InventoryReserved,
    InventoryUpdated,
    MissingLine,
    ReservedLine,
)
from shop.inventory.model import Audited, Change, Decision, Wish


def moved(changes: Iterable[Change], *, at: datetime) -> list[Event]:
    """One update per product, and a warning for each that fell to its reorder level."""
    found: list[Event] = []
    for change in changes:
        after = change.after
        found.append(
            InventoryUpdated(
                sku=after.sku, on_hand=after.on_hand, available=after.available, version=after.version, at=at
            )
        )
        if change.became_low:
            low = InventoryLow(sku=after.sku, available=after.available, reorder_level=after.reorder_level, at=at)
            found.append(low)
    return found


def of_order(wish: Wish, decision: Decision, *, at: datetime) -> list[Event]:
    """Return the events of a decision: the new levels of its products, and the result for the order."""
    return [*moved(decision.changes, at=at), decided(wish.order_id, wish.customer_id, decision, at=at)]


def decided(order_id: UUID, customer_id: UUID, decision: Decision, *, at: datetime) -> Event:
    """Return whether the order got its share."""
    if decision.missing:
        missing = tuple(
            MissingLine(sku=short.sku, requested=short.requested, available=short.available)
            for short in decision.missing
        )
        return InventoryRejected(order_id=order_id, customer_id=customer_id, missing=missing, at=at)
    lines = tuple(ReservedLine(sku=change.after.sku, quantity=change.reserved) for change in decision.changes)
    return InventoryReserved(order_id=order_id, customer_id=customer_id, lines=lines, at=at)


def fact(reservation: Audited) -> ReservationFact:
    """Return the reservation as the auditor sees it."""
    return ReservationFact(
        order_id=reservation.order_id,
        state=reservation.state.value,
        reserved=dict(reservation.reserved),
        released=dict(reservation.released),
    )
