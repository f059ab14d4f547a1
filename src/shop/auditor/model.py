"""The facts about one order, and what about them doesn't add up. Pure; the time comes in as an argument.

Invariant: a confirmed order is worth what the provider holds for it, any other is worth nothing; inventory holds the
units of confirmed orders. Whatever differs is unexplained, in cents and in units; each rule names one way in which it
can differ. Only facts that have come to rest are compared: before, events about the order may be on their way.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from shop.contracts.audit import MailFact, OrderFact, PaymentFact, ProviderFact, ReservationFact
from shop.kernel import Money

Fact = OrderFact | PaymentFact | ProviderFact | ReservationFact | MailFact

CHARGED = ("captured", "refunding", "refunded")
"""States of a payment of which the provider has a capture."""
WITHOUT_MAIL = "refunded"
"""Reason of a cancellation that mails nothing of its own: the mail about the refund tells of both."""


class Feed(StrEnum):
    """Sources of facts."""

    ORDERS = "orders"
    PAYMENTS = "payments"
    PROVIDER = "provider"  # the provider's own ledger, read through payments
    INVENTORY = "inventory"
    NOTIFICATIONS = "notifications"


class Kind(StrEnum):
    """In which way facts about an order differ."""

    CHARGE_MISSING = "charge-missing"  # confirmed, but the provider has no capture
    AMOUNT_DIFFERS = "amount-differs"  # captured once or more, but not what the order is worth
    REFUNDED_CONFIRMED = "refunded-but-confirmed"  # money went back, the order still counts on it
    MONEY_KEPT = "money-kept"  # cancelled, but not all of the captured money went back
    REFUNDED_TOO_MUCH = "refunded-too-much"  # more went back than was captured
    CHARGE_WITHOUT_ORDER = "charge-without-order"  # the provider holds money for an order that isn't there
    PAYMENT_DIFFERS = "payment-differs"  # payments says something else than its provider
    UNSETTLED = "unsettled"  # neither confirmed nor cancelled, for too long
    STOCK_NOT_RESERVED = "stock-not-reserved"  # confirmed, but inventory holds nothing
    STOCK_NOT_RETURNED = "stock-not-returned"  # cancelled, but inventory holds units
    UNITS_DIFFER = "units-differ"  # other units are held, or came back, than the order is about
    RESERVATION_WITHOUT_ORDER = "reservation-without-order"
    MAIL_MISSING = "mail-missing"
    MAIL_DOUBLED = "mail-doubled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All facts about one subject: an order by its id, or `charge:<key>` for a charge whose order isn't known."""

    subject: str
    order: OrderFact | None = None
    order_seen_at: datetime | None = None
    """When the order was read last, by the database's clock."""
    payment: PaymentFact | None = None
    entries: tuple[ProviderFact, ...] = ()
    reservation: ReservationFact | None = None
    mails: tuple[MailFact, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """One thing about a case that doesn't add up."""

    kind: Kind
    amount: Money | None = None
    units: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a comparison. `check_at` is when the same facts have to be compared again, if ever."""

    discrepancies: tuple[Discrepancy, ...]
    cents: int
    """What the provider holds and should not, or should hold and doesn't."""
    currency: str
    units: int
    """The same for what inventory holds, in units."""
    check_at: datetime | None


def examine(case: Case, now: datetime, *, unsettled_after: timedelta) -> Verdict:
    """Compare the facts of a case that has come to rest."""
    found = [*_money(case), *_payment(case), *_stock(case), *_mails(case)]
    check_at = None
    if case.order is not None and case.order_seen_at is not None and not _is_final(case.order):
        check_at = case.order_seen_at + unsettled_after
        if check_at <= now:
            found.append(Discrepancy(kind=Kind.UNSETTLED, amount=case.order.total, detail=case.order.status))
            check_at = None
    currency = _currency(case)
    worth = case.order.total if _is_confirmed(case) and case.order else Money.zero(currency)
    differing = abs(worth.amount - _held(case, currency).amount) if _is_settled(case) else Money.zero().amount
    units = _unexplained_units(case) if _is_settled(case) else 0
    return Verdict(
        discrepancies=tuple(found), cents=int(differing * 100), currency=currency, units=units, check_at=check_at
    )


def _is_final(order: OrderFact) -> bool:
    return order.status in ("confirmed", "cancelled")


def _is_settled(case: Case) -> bool:
    """Return whether the books must be even: the order has reached a final state, or doesn't exist."""
    return case.order is None or _is_final(case.order)


def _is_confirmed(case: Case) -> bool:
    return case.order is not None and case.order.status == "confirmed"


def _currency(case: Case) -> str:
    if case.order is not None:
        return case.order.total.currency
    return case.entries[0].amount.currency if case.entries else Money.zero().currency


def _sum(case: Case, entry: str, currency: str) -> Money:
    found = (each.amount for each in case.entries if each.entry == entry and each.amount.currency == currency)
    return Money.sum(found, currency)


def _held(case: Case, currency: str) -> Money:
    return _sum(case, "captured", currency) - _sum(case, "refunded", currency)


def _money(case: Case) -> Iterator[Discrepancy]:
    currency = _currency(case)
    captured, refunded, held = _sum(case, "captured", currency), _sum(case, "refunded", currency), _held(case, currency)
    for entry in case.entries:
        if entry.amount.currency != currency:
            detail = f"{entry.entry} {entry.amount}, the order is in {currency}"
            yield Discrepancy(kind=Kind.AMOUNT_DIFFERS, amount=entry.amount, detail=detail)
    if held.amount < 0:
        yield Discrepancy(kind=Kind.REFUNDED_TOO_MUCH, amount=refunded - captured, detail=f"captured {captured}")
    if not _is_settled(case):
        return
    if case.order is None:
        if held.amount > 0:
            yield Discrepancy(kind=Kind.CHARGE_WITHOUT_ORDER, amount=held)
        return
    if not _is_confirmed(case):
        if held.amount > 0:
            detail = f"cancelled ({case.order.reason}), captured {captured}, refunded {refunded}"
            yield Discrepancy(kind=Kind.MONEY_KEPT, amount=held, detail=detail)
        return
    total = case.order.total
    if captured.amount == 0:
        yield Discrepancy(kind=Kind.CHARGE_MISSING, amount=total)
    elif captured != total:
        difference = Money(abs((captured - total).amount), currency)
        yield Discrepancy(kind=Kind.AMOUNT_DIFFERS, amount=difference, detail=f"captured {captured} for {total}")
    if refunded.amount > 0:
        yield Discrepancy(kind=Kind.REFUNDED_CONFIRMED, amount=refunded)


def _payment(case: Case) -> Iterator[Discrepancy]:
    payment = case.payment
    if payment is None or payment.amount is None:
        return
    currency = payment.amount.currency
    captured, held = _sum(case, "captured", currency), _held(case, currency)
    says = f"payments says {payment.status}"
    if payment.status in CHARGED and captured.amount == 0:
        yield Discrepancy(kind=Kind.PAYMENT_DIFFERS, amount=payment.amount, detail=f"{says}, the provider has nothing")
    elif payment.status == "captured" and held.amount == 0:
        yield Discrepancy(kind=Kind.PAYMENT_DIFFERS, amount=payment.amount, detail=f"{says}, the provider refunded it")
    elif payment.status in ("declined", "voided", "refunded") and held.amount > 0:
        yield Discrepancy(kind=Kind.PAYMENT_DIFFERS, amount=held, detail=f"{says}, the provider holds {held}")


def _expected_units(case: Case) -> Counter[str]:
    return Counter(case.order.units if case.order is not None and _is_confirmed(case) else {})


def _held_units(case: Case) -> Counter[str]:
    """Return the units that inventory's ledger holds for the order, whatever the reservation's state."""
    held: Counter[str] = Counter()
    if case.reservation is not None:
        held.update(case.reservation.reserved)
        held.subtract(case.reservation.released)
    return held


def _unexplained_units(case: Case) -> int:
    expected, held = _expected_units(case), _held_units(case)
    return sum(abs(expected[sku] - held[sku]) for sku in expected.keys() | held.keys())


def _stock(case: Case) -> Iterator[Discrepancy]:
    if not _is_settled(case):
        return
    units, held, state = _unexplained_units(case), _held_units(case), case.reservation and case.reservation.state
    total = sum(held.values())
    if _is_confirmed(case) and state != "reserved":
        yield Discrepancy(kind=Kind.STOCK_NOT_RESERVED, units=units, detail=f"reservation: {state or 'none'}")
    elif case.order is None and total:
        yield Discrepancy(kind=Kind.RESERVATION_WITHOUT_ORDER, units=total)
    elif not _is_confirmed(case) and (state == "reserved" or total > 0):
        yield Discrepancy(kind=Kind.STOCK_NOT_RETURNED, units=units, detail=f"reservation: {state}")
    elif units:
        yield Discrepancy(kind=Kind.UNITS_DIFFER, units=units, detail=f"held: {dict(held)}")


def _mails(case: Case) -> Iterator[Discrepancy]:
    counts = Counter(mail.kind for mail in case.mails)
    for kind, count in sorted(counts.items()):
        if count > 1:
            yield Discrepancy(kind=Kind.MAIL_DOUBLED, detail=f"{count} x {kind}")
    if case.order is None or not _is_final(case.order):
        return
    wanted: set[str] = set() if case.order.reason == WITHOUT_MAIL else {case.order.status}
    if case.payment is not None and case.payment.status == "refunded":
        wanted.add("refunded")
    for kind in sorted(wanted - counts.keys()):
        yield Discrepancy(kind=Kind.MAIL_MISSING, detail=kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A discrepancy on the list for attention; `resolved_at` is when the facts added up again."""

    id: int
    subject: str
    kind: Kind
    amount: Money | None
    units: int
    detail: str
    first_seen: datetime
    last_seen: datetime
    resolved_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedState:
    """The progress of reading one service's changes; `age` is in seconds since all of them were read."""

    feed: Feed
    age: float
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The state of the audit: what is unexplained, and how much of it can be known now."""

    cents: dict[str, int]
    """Unexplained, by currency."""
    units: int
    open: dict[str, int]
    """Open findings by kind."""
    waiting: int
    """Subjects that are still to be compared."""
    feeds: tuple[FeedState, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """A fact as it is kept: of which feed, under which id, and about which order or charge."""

    id: str
    order_id: UUID | None
    charge: str | None
    fact: Fact


def row(fact: Fact) -> Row:
    """Return a fact as it is stored: a later one with the same id replaces it."""
    match fact:
        case PaymentFact():
            return Row(str(fact.payment_id), fact.order_id, str(fact.payment_id), fact)
        case ProviderFact():
            return Row(f"{fact.entry}:{fact.id}", None, fact.charge, fact)
        case MailFact():
            return Row(str(fact.id), fact.order_id, None, fact)
        case _:
            return Row(str(fact.order_id), fact.order_id, None, fact)
