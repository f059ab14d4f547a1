"""The lease registry, as a pure object."""

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from backstay.discovery import LeaseRegistry, Registration, TooManyLeases

NOW = 1_000_000.0
ORDERS = Registration("ORDERS", "orders-1", "h", "1.2.3.4", 80, duration=15, dirty_at=1000)


def registered(*registrations: Registration) -> LeaseRegistry:
    leases = LeaseRegistry()
    for registration in registrations or (ORDERS,):
        leases.register(registration, NOW)
    return leases


def status(leases: LeaseRegistry) -> str:
    lease = leases.get("orders", "orders-1")
    assert lease is not None
    return lease.registration.status


def test_a_lease_ends_exactly_after_its_duration() -> None:
    """Neither before nor, as in Eureka, a whole duration later."""
    leases = registered()

    assert leases.evict(NOW + 14.999) == []
    assert [lease.registration.id for lease in leases.evict(NOW + 15)] == ["orders-1"]
    assert leases.get("orders", "orders-1") is None


def test_a_heartbeat_prolongs_a_lease_by_one_duration() -> None:
    """A renewed lease ends one duration after its last heartbeat, not two."""
    leases = registered()

    assert leases.renew("orders", "orders-1", NOW + 10)

    assert leases.evict(NOW + 24.9) == []
    assert len(leases.evict(NOW + 25)) == 1


def test_a_heartbeat_without_a_lease_is_answered_no() -> None:
    """The client learns that it has to register again."""
    assert not registered().renew("orders", "other", NOW)
    assert not registered().renew("payments", "orders-1", NOW)


def test_a_heartbeat_of_a_newer_client_asks_for_its_registration() -> None:
    """If the client changed since it registered, the heartbeat isn't enough; an older one is."""
    leases = registered()

    assert not leases.renew("orders", "orders-1", NOW, dirty_at=1001)
    assert leases.renew("orders", "orders-1", NOW, dirty_at=1000)
    assert leases.renew("orders", "orders-1", NOW, dirty_at=999)


def test_applications_are_found_whatever_their_case() -> None:
    """Eureka writes them in upper case, callers ask in lower."""
    assert registered().app("Orders") == registered().app("ORDERS") != []


def test_an_older_registration_never_replaces_a_newer_one() -> None:
    """A late repeat of an old registration changes nothing but renews."""
    leases = registered()
    leases.register(replace(ORDERS, port=81, dirty_at=2000), NOW)

    lease = leases.register(replace(ORDERS, port=80, dirty_at=1500), NOW + 5)

    assert lease.registration.port == 81
    assert lease.ends_at == NOW + 20


def test_being_up_is_dated_from_the_first_time() -> None:
    """Registering again doesn't make a service look freshly started."""
    leases = registered(replace(ORDERS, status="STARTING"))
    leases.register(replace(ORDERS, dirty_at=1001), NOW + 3)

    lease = leases.register(replace(ORDERS, dirty_at=1002), NOW + 9)

    assert lease.up_since == NOW + 3


def test_cancel_tells_whether_there_was_a_lease() -> None:
    """True once, then False."""
    leases = registered()

    assert leases.cancel("orders", "orders-1")
    assert not leases.cancel("orders", "orders-1")


def test_an_override_outlives_heartbeats_and_registrations() -> None:
    """What an operator took out of service stays out until the override is removed."""
    leases = registered()
    assert leases.override("orders", "orders-1", "OUT_OF_SERVICE", NOW)

    assert leases.renew("orders", "orders-1", NOW + 1)
    leases.register(replace(ORDERS, dirty_at=3000), NOW + 2)
    assert status(leases) == "OUT_OF_SERVICE"

    assert leases.remove_override("orders", "orders-1", NOW + 3, status="UP")
    assert status(leases) == "UP"
    assert leases.renew("orders", "orders-1", NOW + 4)


def test_an_override_removed_without_a_status_makes_the_client_register() -> None:
    """The status is unknown then, so the next heartbeat is answered no and the client tells it anew."""
    leases = registered()
    leases.override("orders", "orders-1", "OUT_OF_SERVICE", NOW)
    leases.remove_override("orders", "orders-1", NOW)

    assert status(leases) == "UNKNOWN"
    assert not leases.renew("orders", "orders-1", NOW + 1)
    leases.register(replace(ORDERS, dirty_at=1001), NOW + 1)
    assert status(leases) == "UP"


def test_a_registry_that_stood_still_blames_nobody() -> None:
    """Who could not be heard for ten seconds keeps his lease for ten seconds more."""
    leases = LeaseRegistry()
    lease = leases.register(ORDERS, NOW)
    leases.excuse(10.0)

    assert leases.evict(lease.ends_at - 0.1) == []
    assert lease.ends_at == NOW + lease.registration.duration + 10
    assert leases.evict(lease.ends_at) == [lease]


def test_an_override_outlives_an_eviction_for_a_while() -> None:
    """An instance that comes back within the hour is still out of service."""
    leases = registered()
    leases.override("orders", "orders-1", "OUT_OF_SERVICE", NOW)
    leases.evict(NOW + 100)

    leases.register(ORDERS, NOW + 200)
    assert status(leases) == "OUT_OF_SERVICE"

    leases.evict(NOW + 300)
    leases.evict(NOW + 300 + 3600)
    leases.register(ORDERS, NOW + 4000)
    assert status(leases) == "UP"


@pytest.mark.parametrize(
    ("before", "says", "becomes"),
    [
        ("UP", "DOWN", "DOWN"),
        ("UP", "STARTING", "STARTING"),
        ("UP", "OUT_OF_SERVICE", "UP"),
        ("DOWN", "UP", "UP"),
        ("STARTING", "UP", "UP"),
        ("OUT_OF_SERVICE", "UP", "OUT_OF_SERVICE"),
    ],
)
def test_statuses_of_registrations_follow_eureka(before: str, says: str, becomes: str) -> None:
    """DOWN and STARTING are believed; UP and OUT_OF_SERVICE don't undo each other without an override."""
    leases = registered(replace(ORDERS, status=before))

    leases.register(replace(ORDERS, status=says, dirty_at=1001), NOW)

    assert status(leases) == becomes


def test_the_version_grows_with_visible_changes_only() -> None:
    """Heartbeats leave the cached answers valid."""
    leases = registered()
    before = leases.version

    leases.renew("orders", "orders-1", NOW + 1)
    assert leases.version == before

    leases.add_metadata("orders", "orders-1", {"zone": "b"}, NOW + 2)
    leases.override("orders", "orders-1", "DOWN", NOW + 2)
    leases.cancel("orders", "orders-1")
    assert leases.version == before + 3


def test_a_full_registry_says_so_but_renews_who_is_in_it() -> None:
    """The bound refuses newcomers only."""
    leases = LeaseRegistry(max_leases=1)
    leases.register(ORDERS, NOW)
    leases.register(replace(ORDERS, dirty_at=2000), NOW)

    with pytest.raises(TooManyLeases, match="1 leases"):
        leases.register(replace(ORDERS, id="orders-2"), NOW)


class Model(RuleBasedStateMachine):
    """Random registrations, heartbeats, cancellations and time, against a dictionary of ends."""

    def __init__(self) -> None:
        super().__init__()
        self.leases = LeaseRegistry()
        self.now = NOW
        self.ends: dict[str, float] = {}
        self.durations: dict[str, int] = {}

    @rule(name=st.sampled_from("abc"), duration=st.integers(1, 20))
    def register(self, name: str, duration: int) -> None:
        self.leases.register(Registration("APP", name, "h", "i", duration=duration), self.now)
        self.ends[name], self.durations[name] = self.now + duration, duration

    @rule(name=st.sampled_from("abc"))
    def renew(self, name: str) -> None:
        assert self.leases.renew("app", name, self.now) == (name in self.ends)
        if name in self.ends:
            self.ends[name] = self.now + self.durations[name]

    @rule(name=st.sampled_from("abc"))
    def cancel(self, name: str) -> None:
        assert self.leases.cancel("app", name) == (self.ends.pop(name, None) is not None)

    @rule(seconds=st.floats(0, 15))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        gone = {lease.registration.id for lease in self.leases.evict(self.now)}
        assert gone == {name for name, end in self.ends.items() if end <= self.now}
        self.ends = {name: end for name, end in self.ends.items() if name not in gone}

    @invariant()
    def lists_agree(self) -> None:
        assert [lease.registration.id for lease in self.leases.app("app")] == sorted(self.ends)
        assert self.leases.statistics().leases == len(self.ends)


TestModel = Model.TestCase
TestModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
