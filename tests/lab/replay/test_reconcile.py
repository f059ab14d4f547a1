"""The comparison finds every kind of difference, and none where there is none."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lab.replay import expected
from lab.replay.books import Entries, Figures, MailEntry, OrderEntry, PaymentEntry, StockEntry
from lab.replay.place import Placed, same_answer
from lab.replay.reconcile import Case, reconcile
from lab.system.dataset import Customer, History, Line, Order, Product

TEA = Product("A", "Tea", "Drinks", "S", "box", Decimal("1.10"), 3, 1, discontinued=False)
JAM = Product("B", "Jam", "Spreads", "S", "jar", Decimal("2.05"), 1, 0, discontinued=True)
FIRST = Order("1", "X", (Line("A", 2), Line("B", 1)))  # 4.25
SECOND = Order("2", "X", (Line("A", 5),))  # 5.50
HISTORY = History({"A": TEA, "B": JAM}, {"X": Customer("X", "Xavier Ltd", "Xavier")}, (FIRST, SECOND))
NOBODY = Figures(0, 0, Decimal(0), {}, {}, {})
OUT_OF_STOCK = {"type": "urn:backstay:problem:out-of-stock"}


def order(entry: Order, status: str = "confirmed") -> OrderEntry:
    lines = tuple((line.sku, line.quantity, HISTORY.products[line.sku].price) for line in entry.lines)
    return OrderEntry("x-id", status, expected.order_total(HISTORY, entry), lines)


def mail(number: str, kind: str, about: str | None) -> MailEntry:
    return MailEntry(number, kind, "sent", about, "x-id")


def everything(**changes: Any) -> Case:
    """Both orders confirmed, with stock enough."""
    entries = Entries(
        orders={"o1": order(FIRST), "o2": order(SECOND)},
        reservations={"o1": "reserved", "o2": "reserved"},
        reserved={("o1", "A"): 2, ("o1", "B"): 1, ("o2", "A"): 5},
        stock={"A": StockEntry(7, 7, 7, 7, gapless=True), "B": StockEntry(1, 1, 1, 1, gapless=True)},
        payments={
            "o1": PaymentEntry("captured", Decimal("4.25"), Decimal(0), 1),
            "o2": PaymentEntry("captured", Decimal("5.50"), Decimal(0), 1),
        },
        mails=(mail("m1", "welcome", None), mail("m2", "confirmed", "o1"), mail("m3", "confirmed", "o2")),
        delivered=frozenset({"m1", "m2", "m3"}),
        dead_letters={"orders": 0},
    )
    figures = Figures(
        2, 2, Decimal("9.75"), {"A": 7, "B": 1}, {"A": Decimal("7.70"), "B": Decimal("2.05")}, {"x-id": 2}
    )
    case = Case(
        history=HISTORY,
        placed={"1": Placed(FIRST, 201, {"id": "o1"}), "2": Placed(SECOND, 201, {"id": "o2"})},
        customers={"X": "x-id"},
        start={"A": 7, "B": 1},
        enough=True,
        entries=entries,
        before=NOBODY,
        analytics=figures,
    )
    return replace(case, **changes)


def short() -> Case:
    """Stock as it is: the first order confirmed, the second cancelled and refunded after its confirmation."""
    case = everything()
    entries = replace(
        case.entries,
        orders={"o1": order(FIRST), "o2": order(SECOND, "cancelled")},
        reservations={"o1": "reserved", "o2": "rejected"},
        reserved={("o1", "A"): 2, ("o1", "B"): 1},
        stock={"A": StockEntry(3, 2, 3, 2, gapless=True), "B": StockEntry(1, 1, 1, 1, gapless=True)},
        payments={**case.entries.payments, "o2": PaymentEntry("refunded", Decimal("5.50"), Decimal("5.50"), 1)},
        mails=(*case.entries.mails, mail("m4", "cancelled", "o2"), mail("m5", "refunded", "o2")),
        delivered=frozenset({"m1", "m2", "m3", "m4", "m5"}),
    )
    figures = Figures(
        2, 1, Decimal("4.25"), {"A": 2, "B": 1}, {"A": Decimal("2.20"), "B": Decimal("2.05")}, {"x-id": 1}
    )
    return replace(case, start={"A": 3, "B": 1}, enough=False, entries=entries, analytics=figures)


def differences(case: Case) -> list[str]:
    return [line for check in reconcile(case) for line in check.differences]


def test_books_that_agree_show_no_difference() -> None:
    """With enough stock and with what there is."""
    assert differences(everything()) == []
    assert differences(short()) == []


def test_a_refused_order_needs_short_stock() -> None:
    """Out of stock is an answer only where the stock isn't enough for all."""
    refused = {"1": Placed(FIRST, 201, {"id": "o1"}), "2": Placed(SECOND, 409, OUT_OF_STOCK)}
    case = short()
    entries = replace(
        case.entries,
        orders={"o1": order(FIRST)},
        payments={"o1": case.entries.payments["o1"]},
        mails=case.entries.mails[:2],
    )

    assert differences(replace(case, placed=refused, entries=entries)) == []
    assert any("order 2 was refused" in line for line in differences(everything(placed=refused)))


def test_what_analytics_knew_before_does_not_count() -> None:
    """On a running system only the growth is compared."""
    before = Figures(3, 3, Decimal(10), {"A": 3, "C": 1}, {"A": Decimal("3.30"), "C": Decimal("6.70")}, {"y": 3})
    after = Figures(
        5,
        5,
        Decimal("19.75"),
        {"A": 10, "B": 1, "C": 1},
        {"A": Decimal("11.00"), "B": Decimal("2.05"), "C": Decimal("6.70")},
        {"x-id": 2, "y": 3},
    )

    assert differences(everything(before=before, analytics=after)) == []


CENT = Decimal("0.01")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"orders": {"o1": order(FIRST)}}, "order 2 (o2) is missing"),
        ({"orders": {"o1": order(FIRST), "o2": order(SECOND, "payment_pending")}}, "is payment_pending"),
        ({"orders": {"o1": order(FIRST), "o2": order(SECOND, "cancelled")}}, "is cancelled"),
        ({"orders": {"o1": order(FIRST), "o2": replace(order(SECOND), total=CENT)}}, "costs 0.01 instead of 5.50"),
        (
            {"orders": {"o1": order(FIRST), "o2": replace(order(SECOND), lines=(("A", 5, Decimal("1.11")),))}},
            "confirmed money in all: 9.80 instead of 9.75",
        ),
        ({"orders": {"o1": order(FIRST), "o2": replace(order(SECOND), customer_id="y")}}, "belongs to y"),
        ({"reservations": {"o1": "reserved"}}, "its reservation is missing"),
        ({"reserved": {("o1", "A"): 2, ("o1", "B"): 1, ("o2", "A"): 4}}, "order 2 holds of A: 4 instead of 5"),
        (
            {"stock": {"A": StockEntry(8, 7, 8, 7, gapless=True), "B": StockEntry(1, 1, 1, 1, gapless=True)}},
            "A: 7 confirmed + 1 left",
        ),
        (
            {"stock": {"A": StockEntry(7, 7, 7, 7, gapless=False), "B": StockEntry(1, 1, 1, 1, gapless=True)}},
            "A: its ledger",
        ),
        ({"payments": {"o1": PaymentEntry("captured", Decimal("4.25"), Decimal(0), 1)}}, "order 2 has no payment"),
        ({"mails": (mail("m1", "welcome", None),)}, "0 mails 'confirmed' for order 1"),
        ({"delivered": frozenset({"m1", "m2"})}, "mail m3 (confirmed) is called sent"),
        ({"dead_letters": {"orders": 2}}, "orders has 2 dead letters"),
    ],
)
def test_each_difference_is_told(change: dict[str, Any], words: str) -> None:
    """One wrong book is one line at least, that names what is wrong."""
    case = everything()
    lines = differences(replace(case, entries=replace(case.entries, **change)))

    assert any(words in line for line in lines), lines


def test_money_taken_twice_is_told() -> None:
    """Two captures of one order, and money kept for a cancelled one."""
    twice = {**everything().entries.payments, "o2": PaymentEntry("captured", Decimal("11.00"), Decimal(0), 2)}
    kept = {**short().entries.payments, "o2": PaymentEntry("captured", Decimal("5.50"), Decimal(0), 1)}

    assert any("captured 11.00 in 2" in line for line in differences(_paid(everything(), twice)))
    assert any("order 2 is cancelled and worth 0" in line for line in differences(_paid(short(), kept)))


def _paid(case: Case, payments: dict[str, PaymentEntry]) -> Case:
    return replace(case, entries=replace(case.entries, payments=payments))


def test_analytics_that_lags_is_told() -> None:
    """Each of its figures is compared."""
    lines = differences(everything(analytics=NOBODY))

    for words in ("completed orders", "net revenue", "units of A", "money of B", "orders of customer x-id"):
        assert any(words in line for line in lines), (words, lines)


def test_the_same_answer_again() -> None:
    """A stored answer comes back as it was; a refusal for lack of stock is only refused again."""
    stored = Placed(FIRST, 201, {"id": "o1"})

    assert same_answer(stored, Placed(FIRST, 201, {"id": "o1"}))
    assert not same_answer(stored, Placed(FIRST, 201, {"id": "o2"}))
    assert same_answer(Placed(FIRST, 409, OUT_OF_STOCK), Placed(FIRST, 409, {**OUT_OF_STOCK, "traceId": "2"}))
    assert not same_answer(Placed(FIRST, 409, OUT_OF_STOCK), stored)


def test_the_replay_needs_no_folder_of_its_own(tmp_path: Path) -> None:
    """An order that nobody answered is a difference, not a crash."""
    assert any("order 2 was never answered" in line for line in differences(everything(placed={})))
