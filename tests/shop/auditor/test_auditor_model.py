"""What adds up and what doesn't: each way in which the facts about an order can differ is named, and no other."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.auditor.model import Case, Kind, Verdict, examine
from shop.contracts.audit import MailFact, OrderFact, PaymentFact, ProviderFact, ReservationFact
from shop.kernel import Money

AT = datetime(2026, 1, 1, tzinfo=UTC)
PATIENCE = timedelta(minutes=20)
ORDER, PAYMENT = UUID(int=1), UUID(int=2)
TOTAL = Money.of("18.00")


def verdict(case: Case, *, after: float = 0.0) -> Verdict:
    return examine(case, AT + timedelta(seconds=after), unsettled_after=PATIENCE)


def kinds(case: Case) -> set[Kind]:
    return {each.kind for each in verdict(case).discrepancies}


def entry(what: str, amount: Money = TOTAL, key: str | None = None) -> ProviderFact:
    return ProviderFact(entry=what, id=key or f"{what}-{PAYMENT}", charge=str(PAYMENT), amount=amount, at=AT)


def mail(kind: str) -> MailFact:
    return MailFact(id=uuid4(), order_id=ORDER, kind=kind, state="sent")


def case(
    status: str,
    *,
    reason: str | None = None,
    payment: str | None = None,
    entries: tuple[ProviderFact, ...] = (),
    reservation: str | None = None,
    mails: tuple[str, ...] = (),
    total: Money = TOTAL,
    units: dict[str, int] | None = None,
) -> Case:
    units = units or {"P1": 2, "P2": 1}
    held = units if reservation in ("reserved", "released") else {}
    back = units if reservation == "released" else {}
    return Case(
        subject=str(ORDER),
        order=OrderFact(order_id=ORDER, status=status, total=total, units=units, reason=reason),  # type: ignore[arg-type]
        order_seen_at=AT,
        payment=PaymentFact(order_id=ORDER, payment_id=PAYMENT, status=payment, amount=total) if payment else None,
        entries=entries,
        reservation=ReservationFact(order_id=ORDER, state=reservation, reserved=held, released=back)
        if reservation
        else None,
        mails=tuple(mail(kind) for kind in mails),
    )


CONFIRMED = case(
    "confirmed", payment="captured", entries=(entry("captured"),), reservation="reserved", mails=("confirmed",)
)
REFUNDED = case(
    "cancelled",
    reason="out_of_stock",
    payment="refunded",
    entries=(entry("captured"), entry("refunded")),
    reservation="released",
    mails=("confirmed", "cancelled", "refunded"),
)
SOUND = {
    "confirmed": CONFIRMED,
    "pending first": case(
        "confirmed",
        payment="captured",
        entries=(entry("captured"),),
        reservation="reserved",
        mails=("payment-pending", "confirmed"),
    ),
    "cancelled and refunded": REFUNDED,
    "declined": case(
        "cancelled", reason="payment_declined", payment="declined", mails=("cancelled",), reservation="void"
    ),
    "voided": case("cancelled", reason="cancelled_by_customer", payment="voided", mails=("cancelled",)),
    "rejected": case(
        "cancelled",
        reason="out_of_stock",
        payment="refunded",
        entries=(entry("captured"), entry("refunded")),
        reservation="rejected",
        mails=("confirmed", "cancelled", "refunded"),
    ),
    "refunded at the provider": case(
        "cancelled",
        reason="refunded",
        payment="refunded",
        entries=(entry("captured"), entry("refunded", key="dashboard-1")),
        reservation="released",
        mails=("confirmed", "refunded"),
    ),
    "not settled yet": case("payment_pending", payment="processing", mails=("payment-pending",)),
    "captured, not settled yet": case("created", payment="captured", entries=(entry("captured"),)),
}


def changed(before: Case, **changes: object) -> Case:
    return replace(before, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SOUND)
def test_what_adds_up_is_not_reported(name: str) -> None:
    """Every way in which an order may end, and what is under way: nothing unexplained."""
    found = verdict(SOUND[name])

    assert (found.discrepancies, found.cents, found.units) == ((), 0, 0)


BROKEN = {
    "confirmed by a forged event": (
        changed(CONFIRMED, payment=None, entries=()),
        {Kind.CHARGE_MISSING},
        1800,
        0,
    ),
    "payments believes in a capture that the provider hasn't": (
        changed(CONFIRMED, entries=()),
        {Kind.CHARGE_MISSING, Kind.PAYMENT_DIFFERS},
        1800,
        0,
    ),
    "captured less": (changed(CONFIRMED, entries=(entry("captured", Money.of("17.99")),)), {Kind.AMOUNT_DIFFERS}, 1, 0),
    "captured twice": (
        changed(CONFIRMED, entries=(entry("captured"), entry("captured", key="again"))),
        {Kind.AMOUNT_DIFFERS},
        1800,
        0,
    ),
    "captured in another currency": (
        changed(CONFIRMED, entries=(entry("captured", Money.of("18.00", "EUR")),)),
        {Kind.AMOUNT_DIFFERS, Kind.CHARGE_MISSING, Kind.PAYMENT_DIFFERS},
        1800,
        0,
    ),
    "refunded, still confirmed": (
        changed(CONFIRMED, entries=(entry("captured"), entry("refunded"))),
        {Kind.REFUNDED_CONFIRMED, Kind.PAYMENT_DIFFERS},
        1800,
        0,
    ),
    "a part refunded": (
        changed(CONFIRMED, entries=(entry("captured"), entry("refunded", Money.of("3.00")))),
        {Kind.REFUNDED_CONFIRMED},
        300,
        0,
    ),
    "refunded twice": (
        changed(REFUNDED, entries=(entry("captured"), entry("refunded"), entry("refunded", key="again"))),
        {Kind.REFUNDED_TOO_MUCH},
        1800,
        0,
    ),
    "cancelled, the money kept": (
        changed(REFUNDED, entries=(entry("captured"),)),
        {Kind.MONEY_KEPT, Kind.PAYMENT_DIFFERS},
        1800,
        0,
    ),
    "declined, but taken": (
        changed(SOUND["declined"], entries=(entry("captured"),)),
        {Kind.MONEY_KEPT, Kind.PAYMENT_DIFFERS},
        1800,
        0,
    ),
    "stock not returned": (
        changed(REFUNDED, reservation=CONFIRMED.reservation),
        {Kind.STOCK_NOT_RETURNED},
        0,
        3,
    ),
    "stock not reserved": (changed(CONFIRMED, reservation=None), {Kind.STOCK_NOT_RESERVED}, 0, 3),
    "other units reserved": (
        changed(
            CONFIRMED,
            reservation=ReservationFact(order_id=ORDER, state="reserved", reserved={"P1": 2, "P3": 1}, released={}),
        ),
        {Kind.UNITS_DIFFER},
        0,
        2,
    ),
    "less came back": (
        changed(
            REFUNDED,
            reservation=ReservationFact(order_id=ORDER, state="released", reserved={"P1": 2}, released={"P1": 1}),
        ),
        {Kind.STOCK_NOT_RETURNED},
        0,
        1,
    ),
    "more came back": (
        changed(
            REFUNDED,
            reservation=ReservationFact(order_id=ORDER, state="released", reserved={"P1": 2}, released={"P1": 3}),
        ),
        {Kind.UNITS_DIFFER},
        0,
        1,
    ),
    "reserved without an order": (
        Case(subject=str(ORDER), reservation=CONFIRMED.reservation),
        {Kind.RESERVATION_WITHOUT_ORDER},
        0,
        3,
    ),
    "charged without an order": (
        Case(subject=f"charge:{PAYMENT}", entries=(entry("captured"),)),
        {Kind.CHARGE_WITHOUT_ORDER},
        1800,
        0,
    ),
    "no mail about the end": (changed(CONFIRMED, mails=()), {Kind.MAIL_MISSING}, 0, 0),
    "no mail about the refund": (
        changed(REFUNDED, mails=(mail("confirmed"), mail("cancelled"))),
        {Kind.MAIL_MISSING},
        0,
        0,
    ),
    "two mails of a kind": (
        changed(CONFIRMED, mails=(mail("confirmed"), mail("confirmed"))),
        {Kind.MAIL_DOUBLED},
        0,
        0,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_does_not_add_up_is_named(name: str) -> None:
    """Each with its kinds, and what of it is unexplained, in cents and in units."""
    broken, expected, cents, units = BROKEN[name]
    found = verdict(broken)

    assert {each.kind for each in found.discrepancies} == expected
    assert (found.cents, found.units) == (cents, units)


def test_every_kind_is_shown_by_an_example() -> None:
    """No rule that no example reaches."""
    shown = {kind for _, expected, _, _ in BROKEN.values() for kind in expected}
    assert shown == set(Kind) - {Kind.UNSETTLED}


def test_an_order_that_never_ends_is_reported_when_it_is_old() -> None:
    """Before, the comparison asks for a second look at that time."""
    pending = SOUND["not settled yet"]
    assert verdict(pending).check_at == AT + PATIENCE
    late = verdict(pending, after=PATIENCE.total_seconds())

    assert [each.kind for each in late.discrepancies] == [Kind.UNSETTLED]
    assert late.check_at is None


Amounts = st.integers(1, 10**6).map(lambda cents: Money.of(f"{cents / 100:.2f}"))
Units = st.dictionaries(st.sampled_from(["P1", "P2", "P3"]), st.integers(1, 99), min_size=1)


@given(total=Amounts, units=Units, confirmed=st.booleans(), captured=st.lists(Amounts, max_size=3), data=st.data())
def test_unexplained_is_exactly_what_the_books_differ_by(
    total: Money, units: dict[str, int], confirmed: bool, captured: list[Money], data: st.DataObject
) -> None:
    """Whatever the ledgers of provider and inventory hold: cents and units are counted once, and named."""
    refunded = data.draw(st.lists(Amounts, max_size=3))
    held = data.draw(st.one_of(st.just(units), Units, st.just({})))
    entries = tuple(
        ProviderFact(entry=what, id=f"{what}-{n}", charge=str(PAYMENT), amount=amount, at=AT)
        for what, amounts in (("captured", captured), ("refunded", refunded))
        for n, amount in enumerate(amounts)
    )
    given_case = Case(
        subject=str(ORDER),
        order=OrderFact(
            order_id=ORDER, status="confirmed" if confirmed else "cancelled", total=total, units=units, reason="x"
        ),
        order_seen_at=AT,
        entries=entries,
        reservation=ReservationFact(order_id=ORDER, state="reserved" if held else "void", reserved=held, released={}),
        mails=(mail("confirmed" if confirmed else "cancelled"),),
    )
    found = verdict(given_case)
    net = Money.sum(captured).amount - Money.sum(refunded).amount
    worth = total.amount if confirmed else 0
    wanted = units if confirmed else {}

    assert found.cents == int(abs(worth - net) * 100)
    assert found.units == sum(abs(wanted.get(sku, 0) - held.get(sku, 0)) for sku in wanted.keys() | held.keys())
    named = {each.kind for each in found.discrepancies}
    assert bool(found.cents) <= bool(named & MONEY)
    assert bool(found.units) == bool(named & STOCK)


MONEY = {
    Kind.CHARGE_MISSING,
    Kind.AMOUNT_DIFFERS,
    Kind.REFUNDED_CONFIRMED,
    Kind.MONEY_KEPT,
    Kind.REFUNDED_TOO_MUCH,
    Kind.CHARGE_WITHOUT_ORDER,
}
STOCK = {Kind.STOCK_NOT_RESERVED, Kind.STOCK_NOT_RETURNED, Kind.UNITS_DIFFER, Kind.RESERVATION_WITHOUT_ORDER}
