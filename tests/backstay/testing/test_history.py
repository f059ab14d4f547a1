"""The history checker is believed because each kind of violation is found, and an honest history passes."""

from pathlib import Path

import pytest

from backstay.testing.history import (
    Acquired,
    Checker,
    Deleted,
    Ended,
    Fact,
    Kind,
    Recorder,
    Saw,
    Tried,
    Verdict,
    Written,
    read,
)

ONE, TWO, THREE = (Written("a", version, f"id-{version}") for version in (1, 2, 3))
OTHER = Written("b", 1, "id-b")
COMMITTED: list[Fact] = [Tried("t", (ONE, TWO, OTHER)), Ended("t", "committed")]


def judge(facts: list[Fact], log: list[Written], effects: list[Written], found: set[str] | None = None) -> Verdict:
    checker = Checker()
    checker.take(facts)
    for event in log:
        checker.logged(event)
    for event in effects:
        checker.effected(event)
    if found is not None:
        checker.settle(found)
    return checker.verdict()


def test_an_honest_history_holds() -> None:
    """Repeats in the log are allowed, also behind later versions; effects happen once."""
    verdict = judge(COMMITTED, [ONE, OTHER, TWO, ONE, TWO], [OTHER, ONE, TWO])

    assert verdict.holds
    assert (verdict.events, verdict.log, verdict.repeats, verdict.effects) == (3, 5, 2, 3)
    assert "every invariant holds" in str(verdict)


@pytest.mark.parametrize(
    ("log", "effects", "kinds"),
    [
        ([ONE, OTHER], [ONE, TWO, OTHER], {Kind.LOST: 1}),
        ([ONE, TWO, OTHER], [ONE], {Kind.IDLE: 2}),
        ([TWO, ONE, OTHER], [ONE, TWO, OTHER], {Kind.DISORDER: 1}),
        ([ONE, TWO, OTHER], [TWO, ONE, OTHER], {Kind.OVERTAKEN: 1}),
        ([ONE, TWO, OTHER], [ONE, TWO, OTHER, ONE], {Kind.TWICE: 1}),
        ([ONE, TWO, OTHER, THREE], [ONE, TWO, OTHER], {Kind.INVENTED: 1}),
        ([ONE, TWO, OTHER], [ONE, TWO, OTHER, THREE], {Kind.UNFOUNDED: 1}),
        ([ONE, TWO._replace(version=9), OTHER], [ONE, TWO, OTHER], {Kind.INVENTED: 1}),
    ],
)
def test_each_violation_is_found(log: list[Written], effects: list[Written], kinds: dict[Kind, int]) -> None:
    """What is lost, invented, out of order or doubled is named, and nothing else is."""
    verdict = judge(COMMITTED, log, effects)

    assert verdict.violations == kinds
    assert not verdict.holds
    assert "NOT hold" in str(verdict)


def test_what_was_rolled_back_must_not_appear() -> None:
    """A rolled back event in the log is an invention."""
    facts: list[Fact] = [Tried("t", (ONE,)), Ended("t", "rolled-back")]

    assert judge(facts, [], []).holds
    assert judge(facts, [ONE], []).violations == {Kind.INVENTED: 1}


@pytest.mark.parametrize("end", [[], [Ended("t", "unknown")]], ids=["died", "connection lost"])
def test_an_unknown_outcome_is_what_the_database_says(end: list[Fact]) -> None:
    """Without its word there is no verdict; with it, the transaction counts as committed or as rolled back."""
    facts: list[Fact] = [Tried("t", (ONE,)), *end]
    with pytest.raises(ValueError, match="ask the database"):
        judge(facts, [], [])

    assert judge(facts, [ONE], [ONE], {ONE.id}).holds
    assert judge(facts, [], [], set()).holds
    assert judge(facts, [], [], {ONE.id}).violations == {Kind.LOST: 1, Kind.IDLE: 1}
    assert judge(facts, [ONE], [], set()).violations == {Kind.INVENTED: 1}


def test_a_database_that_forgets_is_named() -> None:
    """If the database loses what it confirmed, that is not blamed on the outbox."""
    verdict = judge(COMMITTED, [ONE, OTHER], [ONE, OTHER], {ONE.id, OTHER.id})

    assert verdict.violations == {Kind.FORGOTTEN: 1}


def test_a_deletion_under_a_replaced_epoch_is_found() -> None:
    """Only if the new epoch was handed out before the deletion began: what overlaps proves nothing."""
    acquired: list[Fact] = [Acquired({7: 2}, 100)]

    assert judge([*acquired, Deleted({7: 1}, 99), Deleted({7: 2}, 200), Deleted({8: 1}, 200)], [], []).holds
    assert judge([*acquired, Deleted({7: 1}, 101)], [], []).violations == {Kind.UNFENCED: 1}


def test_recorded_facts_survive_and_half_a_line_does_not_count(tmp_path: Path) -> None:
    """What `record` returned from is there, however the process ended."""
    facts = [*COMMITTED, Saw((ONE.id,)), Acquired({1: 2}, 3), Deleted({1: 2}, 4)]
    with Recorder(tmp_path / "h") as recorder:
        for fact in facts:
            recorder.record(fact)
    with (tmp_path / "h").open("ab") as file:
        file.write(b'["ended","t","comm')

    assert list(read(tmp_path / "h")) == facts
