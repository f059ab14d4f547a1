"""A storm can be had again: its schedule depends on nothing but its seed."""

import itertools
from collections import Counter

import pytest

from lab.faults.schedule import AT_LEAST_ONCE, Kind, Targets, schedule

TARGETS = Targets(
    services=["discovery", "gateway", "orders", "payments"], broker=["orders", "payments"], database=["orders"]
)


def test_the_same_seed_brings_the_same_storm() -> None:
    """Kind, target, time and length, to the last digit."""
    assert schedule(7, 60, 300, TARGETS) == schedule(7, 60, 300, TARGETS)
    assert schedule(7, 60, 300, TARGETS) != schedule(8, 60, 300, TARGETS)


@pytest.mark.parametrize("seed", range(20))
def test_accidents_are_spread_over_live_orders(seed: int) -> None:
    """In the order of time, all within the run, no long calm between two."""
    times = [accident.at for accident in schedule(seed, 60, 300, TARGETS)]

    assert times == sorted(times)
    assert times[0] >= 9
    assert times[-1] <= 291
    assert max(after - before for before, after in itertools.pairwise(times)) <= 300 * 0.94 / 60 * 2 + 0.01


@pytest.mark.parametrize("seed", range(20))
def test_a_storm_has_everything(seed: int) -> None:
    """Database and broker die in each storm that is long enough; kills and pauses are most of it."""
    kinds = Counter(accident.kind for accident in schedule(seed, 60, 300, TARGETS))

    assert all(kinds[kind] for kind in AT_LEAST_ONCE)
    assert kinds[Kind.KILL] + kinds[Kind.PAUSE] >= 15


def test_everybody_is_met_who_can_be() -> None:
    """Kills and pauses meet services, cuts those who have what is cut."""
    storm = schedule(1, 500, 2000, TARGETS)

    assert {a.target for a in storm if a.kind is Kind.KILL} == set(TARGETS.services)
    assert {a.target for a in storm if a.kind is Kind.CUT_DATABASE} == {"orders", "all"}
    assert all(
        (a.lasts > 0) == (a.kind in (Kind.PAUSE, Kind.SHUT_BROKER, Kind.HOLD_BROKER, Kind.SHUT_DATABASE)) for a in storm
    )


def test_a_small_storm_is_small() -> None:
    """As many accidents as were asked for, none if none were."""
    assert [len(schedule(1, count, 10, TARGETS)) for count in (0, 1, 3)] == [0, 1, 3]
