from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.outbox.leases import Leases, ShardState, View, decide

ME, OTHER, THIRD = uuid4(), uuid4(), uuid4()


def view(owners: dict[int, UUID], *, total: int = 8, members: int = 1, dead: frozenset[int] = frozenset()) -> View:
    shards = (ShardState(n, owners.get(n), 5, n in owners and n not in dead) for n in range(total))
    return View(tuple(shards), members)


def test_alone_takes_all() -> None:
    """A single relay takes every shard."""
    decision = decide(ME, [], view({}))

    assert decision.acquire == tuple(range(8))
    assert decision.release == ()


def test_takes_its_share_only() -> None:
    """With another relay there, half is taken."""
    assert len(decide(ME, [], view({}, members=2)).acquire) == 4


def test_gives_the_surplus() -> None:
    """Whoever has more than its share gives back; the newcomer looks again soon."""
    full = view(dict.fromkeys(range(8), ME), members=2)

    assert decide(ME, range(8), full).release == (4, 5, 6, 7)
    newcomer = decide(OTHER, [], full)
    assert newcomer.acquire == ()
    assert newcomer.eager


def test_takes_over_the_dead() -> None:
    """A shard whose lease is over is free."""
    left = view(dict.fromkeys(range(8), OTHER), members=1, dead=frozenset(range(8)))

    assert decide(ME, [], left).acquire == tuple(range(8))


def test_uneven_shares_are_at_rest() -> None:
    """When shares can't be equal, nobody moves shards about or hurries."""
    owners = {**dict.fromkeys((0, 1, 2), ME), **dict.fromkeys((3, 4, 5), OTHER), **dict.fromkeys((6, 7), THIRD)}
    settled = view(owners, members=3)

    for relay, held in ((ME, (0, 1, 2)), (OTHER, (3, 4, 5)), (THIRD, (6, 7))):
        decision = decide(relay, held, settled)
        assert (decision.acquire, decision.release, decision.eager) == ((), (), False)


def test_own_shards_from_before_come_first() -> None:
    """After a restart, what the database still calls ours is taken again, before others."""
    decision = decide(ME, [], view({6: ME, 7: ME}, members=4))

    assert decision.acquire == (6, 7)


@given(st.lists(st.sampled_from([ME, OTHER, THIRD, None]), min_size=1, max_size=64))
def test_everybody_moves_towards_equal_shares(owners: list[UUID | None]) -> None:
    """Whatever the start, a few rounds of decisions leave every shard owned and the shares fair."""
    held: dict[UUID, set[int]] = {ME: set(), OTHER: set(), THIRD: set()}
    for shard, owner in enumerate(owners):
        if owner is not None:
            held[owner].add(shard)
    for _ in range(4):
        for relay in held:
            state = {shard: owner for owner, shards in held.items() for shard in shards}
            decision = decide(relay, held[relay], view(state, total=len(owners), members=3))
            held[relay] -= set(decision.release)
            held[relay] |= set(decision.acquire)

    share = -(-len(owners) // 3)
    assert sorted(shard for shards in held.values() for shard in shards) == list(range(len(owners)))
    assert all(len(shards) <= share for shards in held.values())


def test_trusted_only_until_it_may_be_over() -> None:
    """A lease counts from before the database was asked, minus the margin."""
    leases = Leases(10.0)
    leases.renewed(100.0)
    leases.acquired({1: 7, 2: 7})

    assert leases.readable(108.9) == [1, 2]
    assert leases.holds(1, 7, 108.9)
    assert not leases.holds(1, 6, 108.9)
    assert leases.readable(109.1) == []
    assert not leases.holds(1, 7, 109.1)


@pytest.mark.parametrize(
    "state", [ShardState(1, OTHER, 8, True), ShardState(1, ME, 8, True), ShardState(1, ME, 7, False)]
)
def test_lost(state: ShardState) -> None:
    """Another owner, another epoch, or a lease that is over: the shard is lost."""
    leases = Leases(10.0)
    leases.renewed(100.0)
    leases.acquired({1: 7, 2: 7})

    assert leases.seen(ME, [state, ShardState(2, ME, 7, True)]) == [1]
    assert dict(leases.epochs) == {2: 7}


def test_leaving() -> None:
    """A shard that is to be given back is read no more, and is held until it is dropped."""
    leases = Leases(10.0)
    leases.renewed(100.0)
    leases.acquired({1: 7, 2: 7})
    leases.leave([1, 5])

    assert leases.leaving() == [1]
    assert leases.readable(101.0) == [2]
    assert leases.holds(1, 7, 101.0)
    leases.dropped(1)
    assert leases.leaving() == []
    assert leases.clear() == [2]
    assert not leases.valid(101.0)
