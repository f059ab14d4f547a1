"""What must always hold is seen not to hold, whichever way it is broken; and a clean run is clean."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from lab.checks.invariants import Attempt, Evidence, judge
from lab.checks.kafka_log import Entry
from lab.faults.run import Struck, hits
from lab.faults.schedule import Accident, Kind
from lab.replay.books import Entries, Figures, OrderEntry, PaymentEntry, StockEntry
from lab.replay.place import Placed
from lab.replay.reconcile import Case, Check
from lab.system.dataset import Customer, History, Line, Order, Product

TEA = Product("A", "Tea", "Drinks", "S", "box", Decimal("1.10"), 3, 1, discontinued=False)
ORDER = Order("10248", "X", (Line("A", 2),))
NOBODY = Figures(0, 0, Decimal(0), {}, {}, {})


def event(id_: str, kind: str, key: str, version: int | None, offset: int, topic: str = "orders") -> Entry:
    return Entry(topic, 0, offset, key, id_, kind, version, 100.0 + offset, b"{}")


LOG = (
    event("e1", "order.created", "o1", 1, 0),
    event("e2", "order.confirmed", "o1", 2, 1),
    event("e1", "order.created", "o1", 1, 2),  # a repeat
    event("e3", "inventory.updated", "A", 1, 0, "inventory"),
    event("e4", "payment.captured", "o1", None, 0, "payments"),
)


def evidence(**changes: Any) -> Evidence:
    entries = Entries(
        orders={"o1": OrderEntry("x", "confirmed", Decimal("2.20"), (("A", 2, Decimal("1.10")),))},
        stock={"A": StockEntry(3, 2, 3, 2, gapless=True)},
        payments={"o1": PaymentEntry("captured", Decimal("2.20"), Decimal(0), 1)},
    )
    case = Case(
        history=History({"A": TEA}, {"X": Customer("X", "Xavier Ltd", "Xavier")}, (ORDER,)),
        placed={"10248": Placed(ORDER, 201, {"id": "o1"})},
        customers={"X": "x"},
        start={"A": 3},
        enough=True,
        entries=entries,
        before=NOBODY,
        analytics=NOBODY,
    )
    clean = Evidence(
        case=case,
        log=LOG,
        versions={"orders": {"o1": 2}, "inventory": {"A": 1}},
        expected={"payment.captured": frozenset({"o1"}), "payment.refunded": frozenset()},
        unpublished={"orders": 0},
        inbox={"inventory": 1},
        ledger_lines=1,
        impossible_lines=0,
        repeated=1,
        otherwise=(),
        attempts=(Attempt(500.0, 0.1, 201), Attempt(501.0, 0.2, 202)),
    )
    return replace(clean, **changes)


def broken(found: Evidence) -> list[str]:
    return [check.name.split()[0] for check in judge(found) if check.differences]


def paid(**changes: Any) -> Case:
    case = evidence().case
    payment = replace(case.entries.payments["o1"], **changes)
    return replace(case, entries=replace(case.entries, payments={"o1": payment}))


def test_a_clean_run_holds() -> None:
    """Repeats after the first occurrence are allowed."""
    assert broken(evidence()) == []


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        ("I1", {"versions": {"orders": {"o1": 3}, "inventory": {"A": 1}}}),
        ("I1", {"log": LOG[1:2] + LOG[3:]}),
        ("I1", {"log": LOG[:-1]}),
        ("I1", {"unpublished": {"orders": 1}}),
        ("I2", {"log": (*LOG, event("e9", "order.cancelled", "o1", 3, 3))}),
        ("I2", {"log": (*LOG, event("e9", "order.confirmed", "o1", 2, 3))}),
        ("I2", {"log": (*LOG, event("e9", "payment.refunded", "o1", None, 3, "payments"))}),
        ("I3", {"log": (replace(LOG[1], offset=0), replace(LOG[0], offset=1), *LOG[3:])}),
        ("I3", {"log": (*LOG, replace(LOG[0], partition=1))}),
        ("I4", {"reconciled": (Check("mails", "", ("2 mails 'confirmed' for order 10248",)),)}),
        ("I5", {"case": paid(captured=Decimal("4.40"), captures=2)}),
        ("I5", {"case": paid(refunded=Decimal("2.20"))}),
        ("I6", {"impossible_lines": 1}),
        ("I7", {"otherwise": ("order 10248, sent again: 409",)}),
        ("I8", {"attempts": (Attempt(500.0, 4.0, 202),)}),
        ("I8", {"attempts": (Attempt(500.0, 0.1, 503),)}),
    ],
)
def test_each_breach_is_seen(names: str, changes: dict[str, Any]) -> None:
    """One breach, one invariant that doesn't hold, by its own name."""
    assert broken(evidence(**changes)) == names.split()


def test_a_difference_names_the_order_of_the_file() -> None:
    """So that its whole story can be told."""
    lost = next(check for check in judge(evidence(log=LOG[1:2] + LOG[3:])) if check.differences)

    assert "order 10248 (o1)" in lost.differences[0]


def test_a_machine_that_stands_still_keeps_no_deadline() -> None:
    """What was late while the client itself got no CPU says nothing about the shop."""
    late = (Attempt(500.0, 9.0, 202),)

    assert broken(evidence(attempts=late, stalls=((503.0, 505.0),))) == []
    assert broken(evidence(attempts=late, stalls=((600.0, 605.0),))) == ["I8"]


@pytest.mark.parametrize(
    ("kind", "target", "counts"),
    [
        (Kind.KILL, "payments", True),
        (Kind.KILL, "orders", False),
        (Kind.PAUSE, "gateway-2", False),
        (Kind.STOP_POSTGRES, "postgres", False),
        (Kind.CUT_DATABASE, "all", False),
        (Kind.CUT_DATABASE, "payments", True),
        (Kind.SHUT_BROKER, "all", True),
        (Kind.KILL_BROKER, "kafka", True),
        (Kind.KILL, "discovery", True),
    ],
)
def test_a_slow_checkout_is_excused_by_what_it_cannot_do_without(kind: Kind, target: str, counts: bool) -> None:
    """The gateway, orders and its database must be there; payments, broker and registry are no excuse."""
    struck = (Struck(Accident(1, 0, kind, target, 0), 499.0, 499.5),)
    found = evidence(struck=struck, attempts=(Attempt(500.0, 9.0, 202),))

    assert (broken(found) == ["I8"]) is counts
    assert any(hits(struck[0].accident, service) for service in ("gateway", "orders")) is not counts
