"""The order: what may be ordered, and how an order moves. Pure; time and answers come in as arguments.

Invariant: an order that ends cancelled owes nobody a thing that isn't written down beside it. Whatever could have
been paid for it is named in a compensation of the same step.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from backstay.errors import BackstayError
from shop.kernel import Money

MAX_LINES = 100
MAX_QUANTITY = 10_000


class Status(StrEnum):
    """States of an order; beside each state, its transitions."""

    CREATED = "created"  # -> payment_pending, confirmed, cancelled
    PAYMENT_PENDING = "payment_pending"  # -> confirmed, cancelled
    CONFIRMED = "confirmed"  # -> cancelled
    CANCELLED = "cancelled"  # final


OPEN = (Status.CREATED, Status.PAYMENT_PENDING)


class Reason(StrEnum):
    """Reasons for which an order waits or ended, as in its events and its view."""

    UNSETTLED = "payment_unsettled"
    DECLINED = "payment_declined"
    VOIDED = "payment_voided"
    TIMEOUT = "payment_timeout"
    OUT_OF_STOCK = "out_of_stock"
    CUSTOMER = "cancelled_by_customer"
    REFUNDED = "refunded"  # at the provider, asked for by nobody here


class Result(StrEnum):
    """The known state of an order's payment."""

    CAPTURED = "captured"
    DECLINED = "declined"
    VOIDED = "voided"
    REFUNDED = "refunded"
    PENDING = "pending"  # in progress, or nobody could tell
    UNKNOWN = "unknown"  # payments never heard of the order


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """An answer of payments, or the reason why there is none."""

    result: Result
    payment_id: UUID | None = None
    reason: str | None = None


class Kind(StrEnum):
    """Ways to undo the payment of a cancelled order."""

    VOID = "void"  # whatever becomes of it
    REFUND = "refund"  # it was captured


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One product of an order, its price and version frozen at checkout."""

    sku: str
    name: str
    quantity: int
    unit_price: Money
    total: Money
    product_version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One customer's order. `version` counts its changes from 1."""

    id: UUID
    customer_id: UUID
    lines: tuple[Line, ...]
    total: Money
    payment_method: str
    created_at: datetime
    updated_at: datetime
    status: Status = Status.CREATED
    payment_id: UUID | None = None
    reason: str | None = None
    version: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """An order for the auditor's comparison."""

    id: UUID
    status: Status
    reason: str | None
    total: Money
    lines: tuple[Line, ...]

    @property
    def units(self) -> dict[str, int]:
        """Units of each product."""
        units: Counter[str] = Counter()
        for line in self.lines:
            units[line.sku] += line.quantity
        return dict(units)


@dataclass(frozen=True, slots=True)
class Unsettled:
    """An order that waits for its payment, and for how long it has, by the clock of the database."""

    order: Order
    waited: timedelta

    def overdue(self, patience: timedelta) -> bool:
        """Return whether it has waited long enough."""
        return self.order.status in OPEN and self.waited >= patience


@dataclass(frozen=True, slots=True)
class Change:
    """An order after a decision, the reversal due at payments because of it, and facts from other services."""

    order: Order
    compensation: Kind | None = None
    note: str | None = None


def settle(order: Order, outcome: Outcome, at: datetime) -> Change:
    """Apply the outcome of the payment to the order, from whatever source and however late.

    A refund that no cancellation of ours asked for was made at the provider: it ends a confirmed order too.
    """
    match order.status, outcome.result:
        case Status.CREATED | Status.PAYMENT_PENDING, Result.CAPTURED:
            after = _moved(order, Status.CONFIRMED, at, payment_id=outcome.payment_id)
        case Status.CREATED | Status.PAYMENT_PENDING, Result.DECLINED:
            after = _moved(order, Status.CANCELLED, at, reason=Reason.DECLINED, payment_id=outcome.payment_id)
        case Status.CREATED | Status.PAYMENT_PENDING, Result.VOIDED:
            after = _moved(order, Status.CANCELLED, at, reason=Reason.VOIDED, payment_id=outcome.payment_id)
        case Status.CREATED | Status.PAYMENT_PENDING | Status.CONFIRMED, Result.REFUNDED:
            after = _moved(order, Status.CANCELLED, at, reason=Reason.REFUNDED, payment_id=outcome.payment_id)
        case Status.CREATED, Result.PENDING | Result.UNKNOWN:
            after = _moved(order, Status.PAYMENT_PENDING, at, reason=Reason.UNSETTLED)
        case Status.CANCELLED, Result.CAPTURED:
            return Change(order, Kind.REFUND)
        case _:
            return Change(order)
    return Change(after, note=outcome.reason)


def cancel(order: Order, at: datetime, *, reason: str) -> Change:
    """Return the order given up, in whatever state: its payment is voided. A cancelled one stays as it is."""
    if order.status is Status.CANCELLED:
        return Change(order)
    return Change(_moved(order, Status.CANCELLED, at, reason=reason), Kind.VOID)


def expire(order: Order, at: datetime) -> Change:
    """Return the overdue order given up; one that was settled meanwhile stays as it is."""
    return cancel(order, at, reason=Reason.TIMEOUT) if order.status in OPEN else Change(order)


def reject(order: Order, at: datetime) -> Change:
    """Return the order after inventory rejected it: the payment is refunded. Only a confirmed one can be rejected."""
    if order.status is not Status.CONFIRMED:
        return Change(order)
    return Change(_moved(order, Status.CANCELLED, at, reason=Reason.OUT_OF_STOCK), Kind.REFUND)


def _moved(
    order: Order, status: Status, at: datetime, *, reason: str | None = None, payment_id: UUID | None = None
) -> Order:
    return replace(
        order,
        status=status,
        reason=reason,
        payment_id=payment_id or order.payment_id,
        version=order.version + 1,
        updated_at=at,
    )


class NewLine(msgspec.Struct, frozen=True, kw_only=True):
    """A product in a new order."""

    sku: str
    quantity: int


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """The contents of a checkout. It names no price: prices are ours."""

    lines: tuple[NewLine, ...]
    payment_method: str
    expected_total: Money | None = None


@dataclass(frozen=True, slots=True)
class Product:
    """A product as our copy of the catalog has it; `stock` is a hint, None if there is none."""

    sku: str
    name: str
    price: Money
    available: bool
    version: int
    stock: int | None = None


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a field of the request breaks."""

    pointer: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shortage:
    """A product of which less is in stock than is wanted."""

    sku: str
    requested: int
    available: int


class InvalidOrder(BackstayError):
    """The request breaks rules; `violations` names every field."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{one.pointer}: {one.reason}" for one in violations[:3]))


class OutOfStock(BackstayError):
    """Less is in stock than is wanted."""

    def __init__(self, missing: Sequence[Shortage]) -> None:
        self.missing = tuple(missing)
        super().__init__("; ".join(f"{one.requested} of {one.sku} wanted, {one.available} left" for one in missing[:3]))


class PriceChanged(BackstayError):
    """The order costs something else than the client expects."""

    def __init__(self, total: Money, expected: Money) -> None:
        self.total = total
        self.expected = expected
        super().__init__(f"the order costs {total}, not {expected}")


def check(wanted: NewOrder, methods: Collection[str]) -> None:
    """Raise InvalidOrder, naming every field that breaks a rule which needs no catalog."""
    if violations := list(_violations(wanted, methods)):
        raise InvalidOrder(violations)


def price(wanted: NewOrder, products: Mapping[str, Product]) -> tuple[tuple[Line, ...], Money]:
    """Return the lines with today's names and prices, and their total.

    Raises:
        InvalidOrder: products that aren't there or aren't sold, or a total that no payment can carry.
        OutOfStock: less is known to be in stock than is wanted.
        PriceChanged: the total differs from the one the client expects.
    """
    if violations := list(_unorderable(wanted, products)):
        raise InvalidOrder(violations)
    if missing := list(_shortages(wanted, products)):
        raise OutOfStock(missing)
    try:
        lines = tuple(_line(line, products[line.sku]) for line in wanted.lines)
        total = Money.sum(line.total for line in lines)
    except ValueError as error:
        raise InvalidOrder([Violation("/lines", f"the total can't be paid: {error}")]) from error
    if total.amount <= 0:
        raise InvalidOrder([Violation("/lines", "there is nothing to pay")])
    if wanted.expected_total is not None and wanted.expected_total != total:
        raise PriceChanged(total, wanted.expected_total)
    return lines, total


def _violations(wanted: NewOrder, methods: Collection[str]) -> Iterator[Violation]:
    if not wanted.lines:
        yield Violation("/lines", "at least one line is required")
    if len(wanted.lines) > MAX_LINES:
        yield Violation("/lines", f"at most {MAX_LINES} lines are allowed, not {len(wanted.lines)}")
    else:
        counts = Counter(line.sku for line in wanted.lines)
        for index, line in enumerate(wanted.lines):
            if not line.sku or counts[line.sku] > 1:
                reason = "each product may appear once" if line.sku else "must not be empty"
                yield Violation(f"/lines/{index}/sku", reason)
            if not 1 <= line.quantity <= MAX_QUANTITY:
                yield Violation(f"/lines/{index}/quantity", f"must be between 1 and {MAX_QUANTITY}")
    if wanted.payment_method not in methods:
        yield Violation("/payment_method", f"must be one of {', '.join(sorted(methods))}")


def _unorderable(wanted: NewOrder, products: Mapping[str, Product]) -> Iterator[Violation]:
    for index, line in enumerate(wanted.lines):
        product = products.get(line.sku)
        if product is None:
            yield Violation(f"/lines/{index}/sku", "no such product")
        elif not product.available:
            yield Violation(f"/lines/{index}/sku", "this product is not for sale")


def _shortages(wanted: NewOrder, products: Mapping[str, Product]) -> Iterator[Shortage]:
    for line in wanted.lines:
        stock = products[line.sku].stock
        if stock is not None and stock < line.quantity:
            yield Shortage(line.sku, line.quantity, stock)


def _line(wanted: NewLine, product: Product) -> Line:
    return Line(
        sku=product.sku,
        name=product.name,
        quantity=wanted.quantity,
        unit_price=product.price,
        total=product.price * wanted.quantity,
        product_version=product.version,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """An entry of an order's timeline: service, step, time. `event_id` is the event that reported it, if one did."""

    at: datetime
    service: str
    what: str
    details: Mapping[str, Any] = field(default_factory=dict)
    event_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """A reversal due at payments for a cancelled order."""

    order_id: UUID
    kind: Kind
    reason: str
    attempts: int
    created_at: datetime

    @property
    def key(self) -> str:
        """The idempotency key of the call that undoes it."""
        return f"{self.order_id}:{self.kind}"
