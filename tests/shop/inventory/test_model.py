from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from shop.inventory.model import (
    ON_HAND_LIMIT,
    Change,
    Kind,
    Level,
    Reserved,
    Shortage,
    State,
    StockError,
    TooMuch,
    decide,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def level(
    sku: str = "NW-001", *, on_hand: int = 0, reserved: int = 0, reorder_level: int = 0, version: int = 1
) -> Level:
    return Level(
        sku=sku, updated_at=NOW, on_hand=on_hand, reserved=reserved, reorder_level=reorder_level, version=version
    )


def test_available_is_what_nobody_holds():
    """On hand minus reserved."""
    assert level(on_hand=10, reserved=3).available == 7


def test_counting_keeps_the_reorder_level_unless_it_is_given():
    """Who only counts says nothing about when to order more."""
    before = level(on_hand=10, reorder_level=5)

    assert before.set(20, now=NOW).after.reorder_level == 5
    assert before.set(20, 0, now=NOW).after.reorder_level == 0


def test_what_orders_hold_cant_be_counted_away():
    """A count below what is reserved is refused: those units are promised."""
    with pytest.raises(Reserved, match="3 are reserved"):
        level(on_hand=10, reserved=3).set(2, now=NOW)


def test_more_than_the_limit_cant_come_in():
    """No sum of deliveries leaves the range of the column."""
    with pytest.raises(TooMuch, match="at most 1 can come in"):
        level(on_hand=ON_HAND_LIMIT - 1).restock(2, now=NOW)


def test_nothing_is_reserved_that_isnt_available():
    """The model refuses even if its caller forgot to ask."""
    with pytest.raises(Reserved):
        level(on_hand=3, reserved=2).reserve(2, now=NOW)


def test_nothing_is_given_back_that_wasnt_held():
    """A release of more than is reserved is a defect and never saved."""
    with pytest.raises(StockError):
        level(on_hand=3, reserved=1).release(2, now=NOW)


def test_an_order_gets_all_its_lines_or_none():
    """One short line, and no other line is touched; every short line is told."""
    levels = {"A": level("A", on_hand=5), "B": level("B", on_hand=1), "C": level("C", on_hand=2)}

    refused = decide(levels, {"A": 5, "B": 2, "C": 3, "D": 1}, now=NOW)

    assert refused.state is State.REJECTED
    assert refused.changes == ()
    assert refused.missing == [Shortage("B", 2, 1), Shortage("C", 3, 2), Shortage("D", 1, 0)]


def test_the_last_unit_can_be_had():
    """Exactly what is available is enough."""
    decision = decide({"A": level("A", on_hand=5, reserved=2)}, {"A": 3}, now=NOW)

    assert decision.state is State.RESERVED
    assert [change.after.available for change in decision.changes] == [0]


@pytest.mark.parametrize(
    ("available", "taken", "became_low"),
    [(11, 1, True), (12, 1, False), (10, 1, False), (20, 20, True)],
)
def test_low_is_told_when_the_reorder_level_is_crossed(available: int, taken: int, became_low: bool):
    """Once on the way down, not with every unit below."""
    change = level(on_hand=available, reorder_level=10).reserve(taken, now=NOW)

    assert change.became_low is became_low


def test_a_first_count_is_no_crossing():
    """A product that starts low did not become low."""
    assert not level(version=0).set(3, 10, now=NOW).became_low


class Ledger(RuleBasedStateMachine):
    """Whatever happens to a product, its ledger adds up and its stock stays within its bounds."""

    orders: Bundle[int] = Bundle("orders")

    def __init__(self) -> None:
        super().__init__()
        self.level = level(version=0)
        self.lines: list[Change] = []

    def _took(self, change: Change) -> None:
        self.lines.append(change)
        self.level = change.after

    @rule(on_hand=st.integers(0, 50), reorder_level=st.none() | st.integers(0, 20))
    def count(self, on_hand: int, reorder_level: int | None) -> None:
        try:
            self._took(self.level.set(on_hand, reorder_level, now=NOW))
        except Reserved:
            assert on_hand < self.level.reserved

    @rule(quantity=st.integers(1, 20))
    def restock(self, quantity: int) -> None:
        self._took(self.level.restock(quantity, now=NOW))

    @rule(quantity=st.integers(1, 20), target=orders)
    def order(self, quantity: int) -> int:
        decision = decide({self.level.sku: self.level}, {self.level.sku: quantity}, now=NOW)
        for change in decision.changes:
            self._took(change)
        return quantity if decision.changes else 0

    @rule(held=st.sampled_from([0]) | orders, again=st.booleans())
    def cancel(self, held: int, again: bool) -> None:
        if held and held <= self.level.reserved and not again:
            self._took(self.level.release(held, now=NOW))

    @invariant()
    def adds_up(self) -> None:
        assert sum(line.on_hand for line in self.lines) == self.level.on_hand
        assert sum(line.reserved for line in self.lines) == self.level.reserved
        assert [line.after.version for line in self.lines] == list(range(1, len(self.lines) + 1))

    @invariant()
    def stays_in_bounds(self) -> None:
        assert 0 <= self.level.reserved <= self.level.on_hand
        assert self.level.available >= 0


TestLedger = Ledger.TestCase


@given(
    st.dictionaries(st.sampled_from("ABCDE"), st.integers(0, 5)),
    st.dictionaries(st.sampled_from("ABCDEF"), st.integers(1, 5), min_size=1),
)
def test_a_decision_takes_what_was_wanted_or_says_why_not(stock: dict[str, int], wanted: dict[str, int]):
    """Reserved means each line in full; rejected means at least one shortage, each true."""
    decision = decide({sku: level(sku, on_hand=units) for sku, units in stock.items()}, wanted, now=NOW)

    if decision.state is State.RESERVED:
        assert {change.after.sku: change.reserved for change in decision.changes} == wanted
        assert all(change.kind is Kind.RESERVE and change.on_hand == 0 for change in decision.changes)
    else:
        assert decision.missing
        assert all(short.available == stock.get(short.sku, 0) < short.requested for short in decision.missing)
