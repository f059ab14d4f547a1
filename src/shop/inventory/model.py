"""Stock of a product and the reservations of orders. Pure.

A product's stock is what is on hand and how much of it orders have reserved; `0 ≤ reserved ≤ on hand` always, and
what is available is the difference. Each change raises the version by one and becomes one line of the ledger, so the
lines of a product add up to its stock. Version 0 means that nothing was ever set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from uuid import UUID

ON_HAND_LIMIT = 1_000_000_000  # units of one product


class StockError(ValueError):
    """A change that the stock doesn't allow."""


class Reserved(StockError):
    """Orders hold more than would be left."""


class TooMuch(StockError):
    """More units than a product may have."""


class Kind(StrEnum):
    """Why the stock changed."""

    SET = "set"  # counted by an admin
    RESTOCK = "restock"  # goods came in
    RESERVE = "reserve"  # held for a confirmed order
    RELEASE = "release"  # given back by a cancelled order


class State(StrEnum):
    """The life of an order's reservation; the first event of an order decides how it begins."""

    RESERVED = "reserved"  # confirmed, all lines taken -> released
    REJECTED = "rejected"  # confirmed, not enough in stock; final
    RELEASED = "released"  # reserved -> cancelled, given back; final
    VOID = "void"  # cancelled before anything was reserved; final


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """The stock of one product."""

    sku: str
    updated_at: datetime
    on_hand: int = 0
    reserved: int = 0
    reorder_level: int = 0
    version: int = 0

    @property
    def available(self) -> int:
        """The units that an order can still get."""
        return self.on_hand - self.reserved

    @property
    def is_low(self) -> bool:
        """True if it is time to order more."""
        return self.available <= self.reorder_level

    def set(self, on_hand: int, reorder_level: int | None = None, *, now: datetime) -> "Change":
        """Set the counted quantity. Raises Reserved when orders hold more than that."""
        if on_hand < self.reserved:
            raise Reserved(f"{self.sku}: {self.reserved} are reserved for orders, so on_hand can't be {on_hand}")
        level = self.reorder_level if reorder_level is None else reorder_level
        return self._moved(Kind.SET, replace(self, on_hand=on_hand, reorder_level=level), now)

    def restock(self, quantity: int, *, now: datetime) -> "Change":
        """Goods came in. Raises TooMuch."""
        if self.on_hand + quantity > ON_HAND_LIMIT:
            raise TooMuch(
                f"{self.sku}: with {self.on_hand} on hand, at most {ON_HAND_LIMIT - self.on_hand} can come in"
            )
        return self._moved(Kind.RESTOCK, replace(self, on_hand=self.on_hand + quantity), now)

    def reserve(self, quantity: int, *, now: datetime) -> "Change":
        """Hold units for an order. Raises Reserved when there are not that many left."""
        if quantity > self.available:
            raise Reserved(f"{self.sku}: {self.available} are available, not {quantity}")
        return self._moved(Kind.RESERVE, replace(self, reserved=self.reserved + quantity), now)

    def release(self, quantity: int, *, now: datetime) -> "Change":
        """Give back what an order held."""
        if quantity > self.reserved:
            raise StockError(f"{self.sku}: {self.reserved} are reserved, so {quantity} can't be given back")
        return self._moved(Kind.RELEASE, replace(self, reserved=self.reserved - quantity), now)

    def _moved(self, kind: Kind, after: "Level", now: datetime) -> "Change":
        return Change(kind, self, replace(after, version=self.version + 1, updated_at=now))


@dataclass(frozen=True, slots=True)
class Change:
    """One step of a product's stock: the line of the ledger that leads from one level to the next."""

    kind: Kind
    before: Level
    after: Level

    @property
    def on_hand(self) -> int:
        """Units that came (or, negative, went)."""
        return self.after.on_hand - self.before.on_hand

    @property
    def reserved(self) -> int:
        """Units that orders hold more (or, negative, less)."""
        return self.after.reserved - self.before.reserved

    @property
    def became_low(self) -> bool:
        """True if this step, and no earlier one, crossed the reorder level."""
        return self.after.is_low and self.before.version > 0 and not self.before.is_low


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a product's ledger."""

    version: int
    kind: Kind
    on_hand: int
    reserved: int
    order_id: UUID | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Shortage:
    """A product of which an order wants more than there is."""

    sku: str
    requested: int
    available: int


@dataclass(frozen=True, slots=True)
class Wish:
    """The units that a confirmed order needs, by sku."""

    order_id: UUID
    customer_id: UUID
    units: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Decision:
    """The result for an order: all of its lines, or none and the reasons why."""

    changes: Sequence[Change]
    missing: Sequence[Shortage]

    @property
    def state(self) -> State:
        """The first state of the order's reservation."""
        return State.REJECTED if self.missing else State.RESERVED


def decide(levels: Mapping[str, Level], wanted: Mapping[str, int], *, now: datetime) -> Decision:
    """All lines or none. A product without a level has nothing available."""
    available = {sku: levels[sku].available if sku in levels else 0 for sku in wanted}
    missing = [Shortage(sku, wanted[sku], left) for sku, left in available.items() if left < wanted[sku]]
    if missing:
        return Decision((), missing)
    return Decision([levels[sku].reserve(quantity, now=now) for sku, quantity in wanted.items()], ())


def decide_all(levels: Mapping[str, Level], wishes: Sequence[Wish], *, now: datetime) -> list[tuple[Wish, Decision]]:
    """Decide each request after those before it."""
    left, decided = dict(levels), []
    for wish in wishes:
        decision = decide(left, wish.units, now=now)
        left.update((change.after.sku, change.after) for change in decision.changes)
        decided.append((wish, decision))
    return decided


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A reservation for the auditor's comparison: units of each product by the ledger."""

    order_id: UUID
    state: State
    reserved: Mapping[str, int]
    released: Mapping[str, int]
