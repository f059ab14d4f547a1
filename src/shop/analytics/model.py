"""Facts about orders, and the figures made of them. Pure.

Events come in any order across topics, some twice. So each only adds facts to its order (when it was created,
confirmed, cancelled, …) and no fact replaces another: of two times the earlier stays. Figures are computed from the
facts when somebody asks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from shop.kernel import Money

DAYS_LIMIT = 366  # days in one answer


@dataclass(frozen=True, slots=True)
class Line:
    """One product of an order."""

    sku: str
    name: str
    quantity: int
    amount: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """The facts that one event has about its order; None for the others."""

    order_id: UUID
    customer_id: UUID
    total: Money | None = None
    lines: tuple[Line, ...] = ()
    created_at: datetime | None = None
    pending_at: datetime | None = None
    confirmed_at: datetime | None = None
    cancelled_at: datetime | None = None
    captured: Money | None = None
    refunded_at: datetime | None = None
    refunded: Money | None = None
    reserved_at: datetime | None = None
    rejected_at: datetime | None = None


def merged(facts: Iterable[Facts]) -> list[Facts]:
    """Merge facts by order, in the order of their ids."""
    found: dict[UUID, Facts] = {}
    for each in facts:
        known = found.get(each.order_id)
        found[each.order_id] = each if known is None else _both(known, each)
    return [found[order_id] for order_id in sorted(found)]


def _both(known: Facts, more: Facts) -> Facts:
    """Of two times the earlier, of other facts the one that was known first."""
    told: dict[str, Any] = {}
    for field in fields(Facts):
        old, new = getattr(known, field.name), getattr(more, field.name)
        told[field.name] = min(old, new) if isinstance(old, datetime) and isinstance(new, datetime) else old or new
    return Facts(**told)


class State(StrEnum):
    """The life of a generation of read models."""

    BUILDING = "building"  # reads all events from their beginning -> current
    CURRENT = "current"  # answers questions -> retired
    RETIRED = "retired"  # replaced; its tables go soon


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One build of the read models, with a consumer group and tables of its own."""

    generation: int
    state: State
    started_at: datetime
    swapped_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Revenue:
    """The worth of confirmed orders. `cancelled` is the part of `confirmed` that was cancelled afterwards."""

    currency: str
    orders: int
    confirmed: Decimal
    cancelled_orders: int
    cancelled: Decimal
    day: date | None = None

    @property
    def net(self) -> Decimal:
        """The rest after cancellations."""
        return self.confirmed - self.cancelled


class Ranking(StrEnum):
    """Criteria of top products."""

    UNITS = "units"
    REVENUE = "revenue"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductSales:
    """Sales of a product in orders that are confirmed and stayed so."""

    sku: str
    name: str
    orders: int
    units: int
    revenue: Money

    def place(self, ranking: Ranking) -> tuple[str, str, str]:
        """Return the position in that ranking: the value in digits, then sku and currency among equals."""
        value = self.units if ranking is Ranking.UNITS else self.revenue.amount
        return str(value), self.sku, self.revenue.currency


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerSales:
    """Orders of a customer; revenue counts orders that are confirmed and stayed so."""

    customer_id: UUID
    orders: int
    confirmed: int
    revenue: Money

    @property
    def place(self) -> tuple[UUID, str]:
        """Return the position in the list."""
        return self.customer_id, self.revenue.currency


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    """Progress of orders. Each stage counts every order that ever reached it."""

    created: int
    payment_pending: int
    confirmed: int
    cancelled: int
    refunded: int
    reserved: int
    rejected: int
    completed: int
    """Confirmed, and not cancelled afterwards."""


def group(generation: int) -> str:
    """Return the consumer group that fills a generation."""
    return f"analytics-{generation}"
