"""The order's state machine and the rules of a checkout: pure, every case by name."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop.kernel import Money
from shop.orders import model
from shop.orders.model import (
    Change,
    InvalidOrder,
    Kind,
    Line,
    NewLine,
    NewOrder,
    Order,
    Outcome,
    OutOfStock,
    PriceChanged,
    Product,
    Reason,
    Result,
    Shortage,
    Status,
    Unsettled,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(seconds=3)
METHODS = ("pm_card_ok", "pm_card_declined")
CHAI = Product("P1", "Chai", Money.of("18.00"), True, 7)
CHANG = Product("P2", "Chang", Money.of("19.50"), True, 3, stock=5)


def order(status: Status = Status.CREATED) -> Order:
    line = Line(
        sku="P1", name="Chai", quantity=1, unit_price=CHAI.price, total=CHAI.price, product_version=CHAI.version
    )
    return Order(
        id=UUID(int=1),
        customer_id=UUID(int=2),
        lines=(line,),
        total=line.total,
        payment_method="pm_card_ok",
        created_at=AT,
        updated_at=AT,
        status=status,
    )


def outcome(result: Result) -> Outcome:
    return Outcome(result=result, payment_id=UUID(int=9), reason="because")


def wanted(*lines: tuple[str, int], method: str = "pm_card_ok", expected: Money | None = None) -> NewOrder:
    return NewOrder(
        lines=tuple(NewLine(sku=sku, quantity=quantity) for sku, quantity in lines),
        payment_method=method,
        expected_total=expected,
    )


MOVES = {
    (Status.CREATED, Result.CAPTURED): Status.CONFIRMED,
    (Status.CREATED, Result.DECLINED): Status.CANCELLED,
    (Status.CREATED, Result.VOIDED): Status.CANCELLED,
    (Status.CREATED, Result.REFUNDED): Status.CANCELLED,
    (Status.CREATED, Result.PENDING): Status.PAYMENT_PENDING,
    (Status.CREATED, Result.UNKNOWN): Status.PAYMENT_PENDING,
    (Status.PAYMENT_PENDING, Result.CAPTURED): Status.CONFIRMED,
    (Status.PAYMENT_PENDING, Result.DECLINED): Status.CANCELLED,
    (Status.PAYMENT_PENDING, Result.VOIDED): Status.CANCELLED,
    (Status.PAYMENT_PENDING, Result.REFUNDED): Status.CANCELLED,
    (Status.CONFIRMED, Result.REFUNDED): Status.CANCELLED,
}


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("result", Result)
def test_settle_moves_what_the_outcome_is_about(status: Status, result: Result) -> None:
    """Every pair of state and outcome: what isn't in the table of moves changes nothing."""
    before = order(status)
    change = model.settle(before, outcome(result), LATER)

    expected = MOVES.get((status, result))
    if expected is None:
        assert change.order is before
    else:
        assert change.order.status is expected
        assert (change.order.version, change.order.updated_at) == (before.version + 1, LATER)
    late = status is Status.CANCELLED and result is Result.CAPTURED
    assert change.compensation is (Kind.REFUND if late else None)


def test_a_decline_tells_its_reason_beside_the_order() -> None:
    """The order keeps a stable reason; the provider's words go along as a note."""
    change = model.settle(order(), outcome(Result.DECLINED), LATER)

    assert change.order.reason == Reason.DECLINED
    assert change.note == "because"


@pytest.mark.parametrize("status", [Status.CREATED, Status.PAYMENT_PENDING, Status.CONFIRMED])
def test_cancelling_always_voids_the_payment(status: Status) -> None:
    """Whatever payments may have done, it is undone; that is written down in the same step."""
    change = model.cancel(order(status), LATER, reason=Reason.CUSTOMER)

    assert change.order.status is Status.CANCELLED
    assert change.order.reason == Reason.CUSTOMER
    assert change.compensation is Kind.VOID


def test_cancelling_twice_changes_nothing() -> None:
    """A repeated cancel is answered with the order as it is."""
    cancelled = order(Status.CANCELLED)
    assert model.cancel(cancelled, LATER, reason="again") == Change(cancelled)


@pytest.mark.parametrize("status", Status)
def test_only_a_confirmed_order_is_rejected_and_refunded(status: Status) -> None:
    """Inventory's refusal is about a confirmed order; one that was cancelled meanwhile stays as it is."""
    before = order(status)
    change = model.reject(before, LATER)

    if status is Status.CONFIRMED:
        assert (change.order.status, change.compensation) == (Status.CANCELLED, Kind.REFUND)
    else:
        assert change == Change(before)


@pytest.mark.parametrize("status", [Status.CREATED, Status.PAYMENT_PENDING, Status.CONFIRMED])
def test_a_refund_made_at_the_provider_ends_the_order(status: Status) -> None:
    """Its reason says so, and nothing is left to undo: the money is back already."""
    change = model.settle(order(status), outcome(Result.REFUNDED), LATER)

    assert (change.order.status, change.order.reason) == (Status.CANCELLED, Reason.REFUNDED)
    assert change.compensation is None


@pytest.mark.parametrize(("seconds", "overdue"), [(899, False), (900, True)])
def test_an_unsettled_order_waits_as_long_as_it_should(seconds: int, overdue: bool) -> None:
    """At the deadline, not before; by the time that the database says it has waited, whatever its own times say."""
    due = Unsettled(order(Status.PAYMENT_PENDING), timedelta(seconds=seconds))

    assert due.overdue(timedelta(seconds=900)) is overdue
    assert not Unsettled(order(Status.CONFIRMED), due.waited).overdue(timedelta(seconds=900))


def test_an_overdue_order_is_given_up_and_its_payment_voided() -> None:
    """Confirmed in the moment before is confirmed."""
    change = model.expire(order(Status.PAYMENT_PENDING), LATER)
    assert (change.order.status, change.compensation) == (Status.CANCELLED, Kind.VOID)
    confirmed = order(Status.CONFIRMED)
    assert model.expire(confirmed, LATER) == Change(confirmed)


def test_every_broken_rule_is_named() -> None:
    """One answer names all fields, so that a client mends its request at once."""
    with pytest.raises(InvalidOrder) as refused:
        model.check(wanted(("P1", 0), ("P1", 10_001), ("", 1), method="cash"), METHODS)

    assert [violation.pointer for violation in refused.value.violations] == [
        "/lines/0/sku",
        "/lines/0/quantity",
        "/lines/1/sku",
        "/lines/1/quantity",
        "/lines/2/sku",
        "/payment_method",
    ]


@pytest.mark.parametrize(("count", "fine"), [(0, False), (1, True), (100, True), (101, False)])
def test_an_order_has_one_to_a_hundred_lines(count: int, fine: bool) -> None:
    """The limits themselves are allowed."""
    new = wanted(*((f"P{n}", 1) for n in range(count)))
    if fine:
        model.check(new, METHODS)
    else:
        with pytest.raises(InvalidOrder) as refused:
            model.check(new, METHODS)
        assert [violation.pointer for violation in refused.value.violations] == ["/lines"]


@pytest.mark.parametrize("quantity", [1, 10_000])
def test_the_limits_of_a_quantity_are_allowed(quantity: int) -> None:
    """From 1 to 10,000."""
    model.check(wanted(("P1", quantity)), METHODS)


def test_prices_are_those_of_our_catalog() -> None:
    """Lines freeze name, price and version; the total is their sum."""
    lines, total = model.price(wanted(("P1", 2), ("P2", 5)), {"P1": CHAI, "P2": CHANG})

    assert total == Money.of("133.50")
    assert [(line.name, line.quantity, str(line.total), line.product_version) for line in lines] == [
        ("Chai", 2, "36.00 USD", 7),
        ("Chang", 5, "97.50 USD", 3),
    ]


def test_unknown_and_unavailable_products_are_named() -> None:
    """Each with the pointer of its line."""
    gone = Product("P3", "Gone", Money.of("1.00"), False, 1)
    with pytest.raises(InvalidOrder) as refused:
        model.price(wanted(("P1", 1), ("P9", 1), ("P3", 1)), {"P1": CHAI, "P3": gone})

    assert [violation.pointer for violation in refused.value.violations] == ["/lines/1/sku", "/lines/2/sku"]


def test_known_shortage_refuses_and_no_hint_allows() -> None:
    """A hint counts only where inventory gave one."""
    with pytest.raises(OutOfStock) as refused:
        model.price(wanted(("P1", 9_999), ("P2", 6)), {"P1": CHAI, "P2": CHANG})

    assert refused.value.missing == (Shortage("P2", 6, 5),)


def test_a_changed_price_is_told() -> None:
    """Whoever states what it expects to pay pays that or nothing."""
    products = {"P1": CHAI}
    model.price(wanted(("P1", 1), expected=Money.of("18.00")), products)
    for expected in (Money.of("17.99"), Money.of("18.00", "EUR")):
        with pytest.raises(PriceChanged) as refused:
            model.price(wanted(("P1", 1), expected=expected), products)
        assert refused.value.total == Money.of("18.00")


def test_a_total_that_no_payment_can_carry_is_refused() -> None:
    """Too much and nothing at all are both no orders, and no crash."""
    for price in ("999999999.00", "0.00"):
        product = Product("P1", "Odd", Money.of(price), True, 1)
        with pytest.raises(InvalidOrder) as refused:
            model.price(wanted(("P1", 10_000)), {"P1": product})
        assert [violation.pointer for violation in refused.value.violations] == ["/lines"]


@given(
    st.lists(
        st.tuples(st.integers(1, model.MAX_QUANTITY), st.decimals("0.01", "9999.99", places=2)), min_size=1, max_size=20
    )
)
def test_not_a_cent_is_lost(lines: list[tuple[int, object]]) -> None:
    """The total is the sum of quantity times price, exactly."""
    products = {f"P{n}": Product(f"P{n}", "x", Money.of(str(price)), True, 1) for n, (_, price) in enumerate(lines)}
    priced, total = model.price(wanted(*((f"P{n}", quantity) for n, (quantity, _) in enumerate(lines))), products)

    assert total.amount == sum(line.unit_price.amount * line.quantity for line in priced)
