"""The choice of an instance."""

import pytest

from backstay.discovery import Balancer, Instance, NoInstance, StaticRegistry, Unreachable
from backstay.testing import FakeClock


def instance(number: int, status: str = "UP", since: int = 0) -> Instance:
    return Instance("orders", f"orders-{number}", "127.0.0.1", 8000 + number, status, since=since)


def test_instances_that_are_up_take_turns() -> None:
    """Round robin, whatever the case of the name, leaving out who isn't up."""
    balancer = Balancer()
    balancer.replace({"ORDERS": [instance(2), instance(1), instance(3, "DOWN")]})

    chosen = [balancer.choose("Orders").id for _ in range(4)]

    assert chosen == ["orders-1", "orders-2", "orders-1", "orders-2"]
    assert len(balancer.instances("orders")) == 3


def test_each_application_has_turns_of_its_own() -> None:
    """Alternating calls to two applications still reach every instance of both."""
    balancer = Balancer()
    balancer.replace({"a": [instance(1), instance(2)], "b": [instance(3), instance(4)]})

    chosen = [balancer.choose(app).id for _ in range(2) for app in ("a", "b")]

    assert len(set(chosen)) == 4


def test_an_ejected_instance_is_left_out_for_a_while() -> None:
    """It comes back by itself; with nobody left, all take turns again: a refused try is better than none."""
    clock = FakeClock()
    balancer = Balancer(clock)
    balancer.replace({"orders": [instance(1), instance(2)]})

    balancer.eject(instance(1), 10)
    assert {balancer.choose("orders").id for _ in range(4)} == {"orders-2"}
    balancer.eject(instance(2), 20)
    assert {balancer.choose("orders").id for _ in range(4)} == {"orders-1", "orders-2"}

    clock.advance(10)
    assert {balancer.choose("orders").id for _ in range(4)} == {"orders-1"}


def test_ejections_outlive_a_new_list_but_not_a_restart_of_the_instance() -> None:
    """A fresh registration at the same address is another instance."""
    balancer = Balancer(FakeClock())
    balancer.replace({"orders": [instance(1, since=1), instance(2)]})
    balancer.eject(instance(1, since=1), 10)

    balancer.replace({"orders": [instance(1, since=1), instance(2)]})
    assert {balancer.choose("orders").id for _ in range(4)} == {"orders-2"}
    balancer.replace({"orders": [instance(1, since=2), instance(2)]})

    assert {balancer.choose("orders").id for _ in range(4)} == {"orders-1", "orders-2"}


def test_no_instance_is_a_connection_error_that_names_the_application() -> None:
    """Retry and breaker treat it as a connection that failed."""
    with pytest.raises(ConnectionError, match="no instance of nobody is up"):
        Balancer().choose("nobody")


def test_a_static_registry_reads_addresses() -> None:
    """`host:port`, also with an IPv6 address; anything else is refused with the reason."""
    registry = StaticRegistry({"a": ["127.0.0.1:8081", "[::1]:8082"]})

    assert [(each.host, each.port) for each in registry.instances("a")] == [("127.0.0.1", 8081), ("::1", 8082)]
    assert registry.choose("A").address == "127.0.0.1:8081"
    with pytest.raises(ValueError, match="address of a must be host:port, not 'nonsense'"):
        StaticRegistry({"a": ["nonsense"]})


TLS_ONLY = Instance("orders", "orders-tls", "127.0.0.1", 8443, secure=True)
PORTLESS = Instance("orders", "orders-0", "127.0.0.1", 0)


def test_an_instance_that_takes_tls_only_gets_no_turn() -> None:
    """Nor does one without an enabled port; those that take plain HTTP share the turns."""
    balancer = Balancer()
    balancer.replace({"orders": [instance(1), instance(2), TLS_ONLY, PORTLESS]})

    chosen = {balancer.choose("orders").id for _ in range(8)}

    assert chosen == {"orders-1", "orders-2"}
    assert len(balancer.instances("orders")) == 4
    assert balancer.apps == {"orders": 2}


@pytest.mark.parametrize(("only", "reason"), [(TLS_ONLY, "takes TLS only"), (PORTLESS, "no enabled port")])
def test_nothing_but_such_instances_is_refused_with_the_reason(only: Instance, reason: str) -> None:
    """Never an address to speak plain HTTP to; an application that is down is still just that."""
    balancer = Balancer()
    balancer.replace({"orders": [only, instance(1, "DOWN")], "payments": [instance(1, "DOWN")]})

    with pytest.raises(Unreachable, match=reason):
        balancer.choose("Orders")
    with pytest.raises(Unreachable, match=reason):
        only.plain_address()
    with pytest.raises(NoInstance, match="no instance of payments is up"):
        balancer.choose("payments")
    balancer.replace({"orders": [only, instance(1)]})
    assert balancer.choose("orders").plain_address() == ("127.0.0.1", 8001)
