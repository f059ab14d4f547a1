"""Several processes of one service: their names, and what the command line may ask for."""

import pytest

from backstay.errors import ConfigError
from lab.system.instances import expanded, instances, read_scale, service_of
from shop import topology


def test_the_first_of_each_comes_before_the_second_of_any() -> None:
    """A service's own name is its first process's."""
    names = [each.name for each in instances((topology.DISCOVERY, topology.ORDERS, topology.PAYMENTS), {"orders": 3})]

    assert names == ["discovery", "orders", "payments", "orders-2", "orders-3"]


@pytest.mark.parametrize(("process", "service"), [("orders", "orders"), ("orders-2", "orders"), ("a-b", "a-b")])
def test_a_process_knows_its_service(process: str, service: str) -> None:
    """The number behind the hyphen is the instance."""
    assert service_of(process) == service


def test_groups_of_services_are_groups_of_processes() -> None:
    """What stops together stops with all its instances."""
    groups = expanded((("gateway",), ("orders", "payments")), ["orders", "gateway", "gateway-2", "orders-2"])

    assert groups == [["gateway", "gateway-2"], ["orders", "orders-2"]]


def test_all_is_everybody_but_discovery() -> None:
    """The registry of one machine is one."""
    scale = read_scale(["all=2", "orders=3"])

    assert "discovery" not in scale
    assert scale["orders"] == 3
    assert scale["gateway"] == scale["payments"] == 2


def test_every_mistake_is_told() -> None:
    """At once, each with what is allowed."""
    with pytest.raises(ConfigError) as error:
        read_scale(["orders", "orders=0", "discovery=2", "ordres=2", "payments=99"])

    assert len(str(error.value).splitlines()) >= 5
