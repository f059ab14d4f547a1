"""What comes through a slot, until it is acknowledged: pure."""

import random
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backstay.errors import ConfigError
from backstay.outbox import OutboxError, WalOptions
from backstay.outbox.store import Row
from backstay.outbox.wal.feed import EMPTY_MARK, KEEP_MARK, Feed
from backstay.outbox.wal.pgoutput import Begin, Commit, Insert, Mark
from backstay.outbox.wal.snapshot import Snapshot

NOW = datetime(2026, 11, 22, tzinfo=UTC)
NOTHING = Snapshot(0, 0, frozenset())


def row(seq: int, shard: int = 0, topic: str = "orders", key: str = "k") -> Row:
    return Row(shard, seq, f"id-{seq}", topic, key, "t", "{}", None, None, NOW)


def feed(*, spills: bool = False, streamed: tuple[int, ...] = (0, 1, 2), **limits: int) -> Feed:
    made = Feed(spills=spills, **{"max_rows": 100, "max_bytes": 100_000, **limits})
    made.join(streamed, NOTHING)
    return made


def transaction(to: Feed, xid: int, end: int, *rows: Row, mark: str = "", due: datetime | None = None) -> None:
    to.push(Begin(xid))
    if mark:
        to.push(Mark(mark))
    for one in rows:
        to.push(Insert(one, 100, due))
    to.push(Commit(end))


def take(of: Feed, *shards: int, limit: int = 100, **waits: list) -> list[int]:  # type: ignore[type-arg]
    topics, keys = waits.get("topics", ()), waits.get("keys", ())
    found = of.take(shards or (0, 1, 2), limit=limit, per_shard=100, topics=topics, keys=keys)
    return [one.seq for one in found]


def test_confirms_what_is_acknowledged() -> None:
    """The slot keeps a transaction until its last event and all before it are acknowledged."""
    held = feed()
    transaction(held, 1, 10, row(1), row(2))
    transaction(held, 2, 20, row(3))
    take(held)
    held.done({0: [3]})
    assert held.confirmed == 0
    held.done({0: [1]})
    assert held.confirmed == 0
    held.done({0: [2]})
    assert held.confirmed == 20


def test_quiet_server_moves_on_only_when_nothing_is_held() -> None:
    """A position behind all transactions is confirmed while none is in our hands."""
    held = feed()
    held.quiet(5)
    assert held.confirmed == 5
    transaction(held, 1, 10, row(1))
    held.quiet(50)
    assert held.confirmed == 5
    take(held)
    held.done({0: [1]})
    held.quiet(50)
    assert held.confirmed == 50


def test_what_the_look_saw_does_not_come_twice() -> None:
    """A transaction that was visible when the table was found empty has been published from there."""
    held = feed(streamed=())
    held.join([0], Snapshot(5, 9, frozenset({6})))
    for n, xid in enumerate((4, 5, 6, 8, 9, 10)):
        transaction(held, xid, n + 1, row(xid))
    assert take(held) == [6, 9, 10]


def test_what_was_left_to_the_table_must_be_visible_there() -> None:
    """A transaction can come through the slot before the table shows it: an empty table proves nothing until then."""
    held = feed(streamed=())
    transaction(held, 7, 10, row(1))
    held.join([0], Snapshot(7, 8, frozenset({7})))
    assert not held.streamed
    held.join([0], Snapshot(8, 8, frozenset()))
    assert list(held.streamed) == [0]


@pytest.mark.parametrize("spills", [False, True])
def test_failure_sends_a_shard_to_its_table(spills: bool) -> None:
    """What was handed out and failed is followed, in order, by all that came behind it; the rest is untouched."""
    held = feed(spills=spills)
    transaction(held, 1, 10, row(1), row(2), row(5, 1))
    take(held)
    transaction(held, 2, 20, row(3), row(6, 1))
    held.check([0, 1], [1, 5])
    assert [one.seq for one, _ in held.to_spill(9, (0, 1, 2))] == ([2, 3] if spills else [])
    assert take(held) == [6]
    assert held.may_read_table(0) is not spills
    held.spilled(held.to_spill(9, (0, 1, 2)))
    assert held.may_read_table(0)
    held.done({0: [1], 1: [5, 6]})
    assert held.confirmed == 20


def test_spilled_rows_hold_the_slot_until_they_lie_in_the_table() -> None:
    """An event that is in no table yet may not be forgotten."""
    held = feed(spills=True, streamed=())
    transaction(held, 1, 10, row(1))
    assert held.confirmed == 0
    held.spilled(held.to_spill(1, (0, 1, 2)))
    assert held.confirmed == 10


def test_put_aside_and_taken_back() -> None:
    """When the table empties before they are written to it, events put aside are streamed, in order."""
    held = feed(spills=True, streamed=())
    transaction(held, 1, 10, row(1), row(2), row(9, 1))
    assert held.candidates([0, 1]) == [0, 1]
    held.join([0], NOTHING)
    transaction(held, 2, 20, row(3))
    assert take(held) == [1, 2, 3]
    assert [one.seq for one, _ in held.to_spill(9, (0, 1, 2))] == [9]


def test_waiting_topic_is_tabled() -> None:
    """A shard at whose head something waits is left to the table; others go on."""
    held = feed()
    transaction(held, 1, 10, row(1, topic="lost"), row(2), row(3, 1))
    assert take(held, topics=["lost"]) == [3]
    transaction(held, 2, 20, row(4, 2, key="bad"))
    assert take(held, keys=[("orders", b"bad")]) == []
    assert set(held.streamed) == {1}


def test_kept_rows_are_read_from_the_table() -> None:
    """What an operator or a relay wrote back lies in the table, also where rows leave it at once."""
    held = feed(spills=True)
    transaction(held, 1, 10, row(1), mark=KEEP_MARK)
    assert (take(held), held.to_spill(9, (0, 1, 2)), held.confirmed) == ([], [], 10)
    assert not held.may_read_table(1)
    assert held.may_read_table(0)


def test_delayed_rows_go_to_the_table_with_their_time() -> None:
    """An event that isn't due waits where the relay looks for it."""
    held = feed(spills=True)
    transaction(held, 1, 10, row(1), due=NOW)
    assert held.to_spill(9, (0, 1, 2)) == [(row(1), NOW)]


def test_begins_anew_when_rows_start_to_leave_the_table() -> None:
    """A reader that counts on the table must not go on past that point."""
    with pytest.raises(OutboxError, match="begin anew"):
        transaction(feed(), 1, 10, mark=EMPTY_MARK)
    transaction(feed(spills=True), 1, 10, mark=EMPTY_MARK)


def test_bounded() -> None:
    """It is full by rows and by bytes, and no longer when they are handed out."""
    held = feed(max_rows=2)
    transaction(held, 1, 10, row(1), row(2))
    assert held.full
    take(held)
    assert not held.full
    assert feed(max_bytes=50).full is False
    large = feed(max_bytes=50)
    transaction(large, 1, 10, row(1))
    assert large.full


def test_handed_out_in_turn_and_bounded() -> None:
    """A read takes no more than it asks for, and leaves the rest in order."""
    held = feed()
    transaction(held, 1, 10, *(row(n) for n in range(5)))
    assert take(held, limit=3) == [0, 1, 2]
    assert take(held, limit=3) == [3, 4]


def test_what_gathers_is_handed_out_together() -> None:
    """While more comes at once nothing is handed out, and everything is as soon as that is over."""
    held = feed()
    held.gathering = True
    transaction(held, 1, 10, row(1), row(2, 1))
    assert take(held) == []
    held.gathering = False
    assert take(held) == [1, 2]


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), spills=st.booleans())
def test_nothing_is_forgotten_and_no_order_turned_round(seed: int, spills: bool) -> None:
    """Whatever fails: each event is acknowledged, lies in the table, or is held by the slot; each shard in order.

    Also when the slot gets a new reader, which is sent again what was not confirmed.
    """
    chance = random.Random(seed)
    held, table, out = feed(spills=spills), list[Row](), list[Row]()
    log = dict[int, list[Row]]()
    ends: dict[int, int] = {}
    flying: list[Row] = []
    seq = 0
    for xid in range(1, 40):
        some = [row(seq + n, chance.randrange(3)) for n in range(chance.randrange(4))]
        seq += len(some)
        ends |= {one.seq: xid * 10 for one in some}
        if chance.random() < 0.08:
            out += flying[: chance.randint(0, len(flying))] if spills else []  # published, and nobody was told
            flying, confirmed, held = [], held.confirmed, feed(spills=spills, streamed=())
            for before in (number for number in log if number * 10 > confirmed):
                transaction(held, before, before * 10, *log[before])
        log[xid] = some
        transaction(held, xid, xid * 10, *some)
        if not spills:
            table += some
        if chance.random() < 0.1:
            held.leave([chance.randrange(3)])  # a key of it is parked
        if chance.random() < 0.5 and not flying:
            flying = held.take((0, 1, 2), limit=chance.randint(1, 6), per_shard=9, topics=(), keys=())
        if flying and chance.random() < 0.7:
            cut = chance.choice((len(flying), chance.randint(0, len(flying))))
            good = [one for n, one in enumerate(flying) if n < cut]
            failed = {one.shard for one in flying[cut:]}
            good = [one for one in good if one.shard not in failed]
            out += good
            known = [one.seq for one in good]
            held.check((0, 1, 2), known)
            held.done({shard: [one.seq for one in good if one.shard == shard] for shard in range(3)})
            table = [one for one in table if one.seq not in set(known)]
            flying = []
        lying = {one.shard for one in table}
        if not flying and spills:
            for one in sorted(table, key=lambda one: one.seq):
                if held.may_read_table(one.shard) and chance.random() < 0.5 and one.shard in lying:
                    out.append(one)
                    table.remove(one)
                else:
                    lying.discard(one.shard)
            left = {one.shard for one in table}
            held.join([shard for shard in held.candidates((0, 1, 2)) if shard not in left], NOTHING)
        if chance.random() < 0.3:
            rows = held.to_spill(chance.randint(1, 5), held.spillable(chance.sample((0, 1, 2), 2)))
            table += [one for one, _ in rows]
            held.spilled(rows)
        seen = {one.seq for one in out} | {one.seq for one in table}
        assert all(number in seen or end > held.confirmed for number, end in ends.items())
    for shard in range(3):
        mine = list(dict.fromkeys(one.seq for one in out if one.shard == shard))
        assert mine == sorted(mine)


@pytest.mark.parametrize(
    ("xid", "seen"), [(4, True), (5, True), (6, False), (8, True), (9, False), (2**32 - 1, True), (2**31 + 20, True)]
)
def test_snapshot(xid: int, seen: bool) -> None:
    """Numbers of transactions are compared on a circle, as the server does."""
    base = 3 * 2**32
    snapshot = Snapshot.parse(f"{base + 5}:{base + 9}:{base + 6}")
    assert snapshot.sees(xid) is seen


def test_options_are_checked() -> None:
    """Each wrong value is named with what is allowed."""
    with pytest.raises(ConfigError, match="retry=0"):
        WalOptions(retry=0)
    with pytest.raises(ConfigError, match="slot='a-b'"):
        WalOptions(slot="a-b")
