from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.messaging import PublishError, Record
from backstay.outbox.waiting import MAX_SUSPECTS, MISSES, Pending
from backstay.outbox.window import Batch, Window

EPOCHS = dict.fromkeys(range(8), 1)


def row(seq: int, key: str = "k", *, shard: int = 0, topic: str = "orders", size: int = 10) -> Pending:
    return Pending(shard, seq, Record(topic, key.encode(), b"{}"), size)


def window(**limits: int) -> Window:
    return Window(**{"max_rows": 100, "max_bytes": 10_000, **limits})


def test_a_shard_is_in_one_publish() -> None:
    """Rows of a shard that is in flight are not taken a second time."""
    held = window()
    first = held.take([row(1), row(2, shard=1)], EPOCHS)
    second = held.take([row(3), row(4, shard=2)], EPOCHS)

    assert first is not None
    assert second is not None
    assert [one.seq for one in second.rows] == [4]
    assert held.readable(range(8), 0.0) == [3, 4, 5, 6, 7]
    assert held.take([row(5)], EPOCHS) is None


def test_reading_goes_round() -> None:
    """The next read begins behind the shard where the last batch ended."""
    held = window()
    batch = held.take([row(1, shard=2), row(2, shard=5)], EPOCHS)
    assert batch is not None
    held.settle(batch, [None, None], EPOCHS, 0.0)

    assert held.readable(range(8), 0.0) == [6, 7, 0, 1, 2, 3, 4, 5]
    assert held.readable(range(8), 0.0, backlog=True) == [6, 7, 0, 1, 3, 4]
    assert held.readable([2, 5], 0.0, backlog=True) == [2, 5]


def test_bounds() -> None:
    """Rows in flight and not yet deleted count; bytes in flight count."""
    held = window(max_rows=2)
    batch = held.take([row(1), row(2)], EPOCHS)
    assert batch is not None
    assert held.full
    held.settle(batch, [None, None], EPOCHS, 0.0)
    assert held.full
    held.deleted({0: [1, 2]})
    assert not held.full

    big = window(max_bytes=100)
    big.take([row(1, size=100)], EPOCHS)
    assert big.full


def test_acknowledged_rows_gather() -> None:
    """Deletions are due a while after the first acknowledgement, or at once when there are many."""
    held = window()
    assert held.deletions_due(0.0, 0.05, 10) == 0.05
    batch = held.take([row(1), row(2)], EPOCHS)
    assert batch is not None
    held.settle(batch, [None, None], EPOCHS, 10.0)

    assert held.deletions_due(10.02, 0.05, 10) == pytest.approx(0.03)
    assert held.deletions_due(10.02, 0.05, 2) == 0.0
    assert held.deletions() == ({0: [1, 2]}, {0: 1})
    assert held.known([0, 1]) == [1, 2]
    held.delete_failed(11.0)
    assert held.deletions_due(11.0, 0.05, 10) == pytest.approx(0.05)
    held.deleted({0: [1, 2], 3: [9]})
    assert held.known([0]) == []


def test_stale_epoch_is_left_alone() -> None:
    """What is acknowledged after its shard has changed hands is the new owner's to delete."""
    held = window()
    batch = held.take([row(1), row(2, shard=1)], EPOCHS)
    assert batch is not None
    held.settle(batch, [None, None], {0: 2, 1: 1}, 0.0)

    assert held.deletions() == ({1: [2]}, {1: 1})
    held.drop(1)
    assert held.deletions() == ({}, {})
    assert held.acknowledged == 0


def test_retriable_failure_makes_the_topic_wait() -> None:
    """The topic waits longer each time, is probed with one row, and flows on at its first success."""
    held = window()
    error = PublishError("retriable", "unknown topic")
    waits = []
    now = 0.0
    for _ in range(9):
        batch = held.take([row(1), row(2), row(3, topic="other")], EPOCHS)
        assert batch is not None
        held.settle(batch, [error] * (len(batch.rows) - 1) + [None], EPOCHS, now)
        pause = held.waits.next_retry(now)
        assert pause is not None
        assert held.waiting_topics(now) == ["orders"]
        waits.append(pause)
        now += pause
        assert held.waiting_topics(now) == []

    assert waits[-1] == pytest.approx(5.0)
    assert [round(pause, 3) for pause in waits[:7]] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2]
    probe = held.take([row(1), row(2), row(3, topic="other"), row(4, topic="other")], EPOCHS)
    assert probe is not None
    assert [one.seq for one in probe.rows] == [1, 3, 4]
    assert held.waiting_topics(now) == ["orders"]
    assert held.take([row(9, shard=7)], EPOCHS) is None
    held.settle(probe, [None] * 3, EPOCHS, now)
    assert held.waits.topics == {}


REFUSED, HELD_BACK = PublishError("record", "too large"), PublishError("retriable", "held back")
LOST = PublishError("producer", "out of order")


def test_refused_in_company_is_offered_alone() -> None:
    """Who was refused together with others is only suspected: its topic goes record by record, suspects first."""
    held = window()
    batch = held.take([row(1, "a"), row(2, "b"), row(3, "b"), row(4, "c"), row(5, topic="other")], EPOCHS)
    assert batch is not None
    outcome = held.settle(batch, [None, REFUSED, HELD_BACK, None, None], EPOCHS, 0.0)

    assert (outcome.acknowledged, outcome.failed, outcome.refused, outcome.poison) == (3, 1, 1, [])
    assert held.waits.topics == {}
    again = held.take([row(6, "a"), row(2, "b"), row(3, "b"), row(7, topic="other")], EPOCHS)
    assert again is not None
    assert [one.seq for one in again.rows] == [2, 7]
    assert held.waiting_topics(0.0) == ["orders"]
    assert held.take([row(8, "d", shard=1)], EPOCHS) is None
    held.settle(again, [None, None], EPOCHS, 0.0)
    assert not held.waits.suspects
    assert held.waiting_topics(0.0) == []


def test_refused_alone_is_poison() -> None:
    """Who is refused alone is named for parking, and isn't read until that is done."""
    held = window()
    for _ in range(2):
        batch = held.take([row(1, "bad"), row(2, "bad"), row(3, "good")], EPOCHS)
        assert batch is not None
        outcome = held.settle(batch, [REFUSED, HELD_BACK, None][: len(batch.rows)], EPOCHS, 0.0)

    assert [(one.row.seq, one.reason) for one in outcome.poison] == [(1, "too large")]
    assert held.waiting_keys() == [("orders", b"bad")]
    assert "parked" in next(held.waits.problems())
    rest = held.take([row(2, "bad"), row(4, "good")], EPOCHS)
    assert rest is not None
    assert [one.seq for one in rest.rows] == [4]
    held.waits.parked(("orders", b"bad"))
    assert held.waiting_keys() == []
    assert not held.waits


def test_suspects_come_first_and_are_forgotten_when_gone() -> None:
    """Reading begins at a suspect's shard; one that isn't found any more is none."""
    held = window()
    batch = held.take([row(1, "a", shard=5), row(2, "b", shard=6)], EPOCHS)
    assert batch is not None
    held.settle(batch, [REFUSED, None], EPOCHS, 0.0)

    assert held.readable(range(8), 0.0)[0] == 5
    for n in range(MISSES):
        other = held.take([row(10 + n, "z", shard=5)], EPOCHS)
        assert other is not None
        held.settle(other, [None], EPOCHS, 0.0)
    assert not held.waits.suspects


def test_many_suspects() -> None:
    """Beyond a bound, whole topics wait instead of a list of keys without end."""
    held = window(max_rows=10_000)
    rows = [row(n, f"key-{n}") for n in range(MAX_SUSPECTS + 5)]
    batch = held.take(rows, EPOCHS)
    assert batch is not None
    held.settle(batch, [REFUSED] * len(rows), EPOCHS, 0.0)

    assert len(held.waits.suspects) == MAX_SUSPECTS
    assert held.waiting_topics(0.0) == ["orders"]


def test_lost_producer_pauses_everything() -> None:
    """A lost producer blames no topic and no key: nothing is read for a moment, longer each time."""
    held = window()
    now, pauses = 0.0, []
    for _ in range(3):
        batch = held.take([row(1), row(2, shard=1, topic="other")], EPOCHS)
        assert batch is not None
        assert len(batch.rows) == 2
        held.settle(batch, [LOST, LOST], EPOCHS, now)
        assert held.readable(range(8), now) == []
        pause = held.waits.next_retry(now)
        assert pause is not None
        pauses.append(pause)
        now += pause

    assert pauses == pytest.approx([0.02, 0.04, 0.08])
    assert "producer" in next(held.waits.problems())
    batch = held.take([row(1)], EPOCHS)
    assert batch is not None
    held.settle(batch, [None], EPOCHS, now)
    assert list(held.waits.problems()) == []


def test_what_is_in_hand() -> None:
    """Parking leaves alone what is published or on its way."""
    held = window()
    first = held.take([row(1), row(2)], EPOCHS)
    assert first is not None
    held.settle(first, [None, None], EPOCHS, 0.0)
    held.take([row(3), row(4, shard=1)], EPOCHS)

    assert sorted(held.in_hand([0])) == [1, 2, 3]
    assert held.in_hand([1]) == [4]


@dataclass
class World:
    """A table, a relay's window, and a log that takes what is published, in order."""

    table: dict[int, Pending] = field(default_factory=dict)
    log: list[int] = field(default_factory=list)
    window: Window = field(default_factory=lambda: Window(max_rows=12, max_bytes=10_000))
    flights: list[Batch] = field(default_factory=list)
    parked: dict[int, Pending] = field(default_factory=dict)
    now: float = 0.0

    def read(self) -> list[Pending]:
        shards = self.window.readable(EPOCHS, self.now)
        known = set(self.window.known(shards))
        topics, keys = (
            set(self.window.waiting_topics(self.now)),
            set(self.window.waiting_keys()) | {one.key for one in self.parked.values()},
        )
        found = [
            one
            for one in sorted(self.table.values(), key=lambda one: one.seq)
            if one.shard in shards and one.seq not in known
            if one.record.topic not in topics and (one.record.topic, one.record.key) not in keys
        ]
        return found[:5]


KEYS = ["a", "b", "c", "d", "e"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(KEYS)),
        st.tuples(st.just("read"), st.none()),
        st.tuples(st.just("settle"), st.lists(st.sampled_from(["ok", "ok", "retriable", "record", "producer"]))),
        st.tuples(st.just("delete"), st.booleans()),
        st.tuples(st.just("pass"), st.floats(0, 40)),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(STEPS)
def test_in_order_per_key_and_nothing_lost(steps: list[tuple[str, object]]) -> None:
    """Whatever fails, first occurrences of a key come in order, and in the end every row is published or parked."""
    world, written = World(), 0
    for step, detail in steps:
        if step == "write":
            written += 1
            key = str(detail)
            world.table[written] = row(written, key, shard=KEYS.index(key) % 3, topic="t1" if key < "d" else "t2")
        elif step == "read" and not world.window.full:
            batch = world.window.take(world.read(), EPOCHS)
            if batch is not None:
                world.flights.append(batch)
        elif step == "settle" and world.flights:
            assert isinstance(detail, list)
            settle(world, detail)
        elif step == "delete":
            delete(world, works=bool(detail))
        elif step == "pass":
            assert isinstance(detail, float)
            world.now += detail
    while world.flights or world.table:
        world.now += 10.0
        park(world)
        while world.flights:
            settle(world, [])
        delete(world, works=True)
        batch = world.window.take(world.read(), EPOCHS)
        if batch is not None:
            world.flights.append(batch)

    assert set(world.log) | set(world.parked) == set(range(1, written + 1))
    assert not set(world.log) & set(world.parked)
    assert world.window.in_flight == world.window.acknowledged == 0


def settle(world: World, fates: list[str]) -> None:
    """End the oldest publish as a producer does: what follows a failed record of its key is held back."""
    batch = world.flights.pop(0)
    results: list[PublishError | None] = []
    held: set[bytes | None] = set()
    rows = batch.rows
    for one, fate in zip(rows, fates + ["ok"] * len(rows), strict=False):
        if one.record.key in held:
            results.append(PublishError("retriable", "held back"))
        elif fate == "ok":
            results.append(None)
            check_order(world, one)
            world.log.append(one.seq)
        else:
            held.add(one.record.key)
            results.append(PublishError(fate, "no"))  # type: ignore[arg-type]
    outcome = world.window.settle(batch, results, EPOCHS, world.now)
    for poison in outcome.poison:
        world.parked[poison.row.seq] = world.table[poison.row.seq]
        park(world)
        world.window.waits.parked(poison.row.key)


def park(world: World) -> None:
    """Take the rows of parked keys out of the table, but those that are published or on their way."""
    keys, known = {one.key for one in world.parked.values()}, set(world.window.in_hand(range(8)))
    for seq, one in list(world.table.items()):
        if one.key in keys and seq not in known:
            world.parked[seq] = world.table.pop(seq)


def check_order(world: World, one: Pending) -> None:
    """Everything of the same key that was written before is in the log already."""
    before = [other.seq for other in world.table.values() if other.record == one.record and other.seq < one.seq]
    assert set(before) <= set(world.log)
    assert not [seq for seq, other in world.parked.items() if other.key == one.key and seq < one.seq]


def delete(world: World, *, works: bool) -> None:
    rows, _ = world.window.deletions()
    if not works:
        world.window.delete_failed(world.now)
        return
    for seq in (seq for seqs in rows.values() for seq in seqs):
        assert seq in world.log
        del world.table[seq]
    world.window.deleted(rows)
