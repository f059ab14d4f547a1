"""Ports: free ones, and who has the taken ones."""

import os
import socket
import sys
from collections.abc import Iterator

import pytest

from shop.local.ports import PortTaken, choose, free_port, holder, is_open


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_refused_with_a_way_out(taken: int) -> None:
    """The message says which, by whom where the system tells, and what to do."""
    with pytest.raises(PortTaken) as caught:
        choose(taken, variable="GATEWAY_PORT", what="gateway")

    assert f"Port {taken} (gateway) is taken" in str(caught.value)
    assert "GATEWAY_PORT=0" in str(caught.value)
    if sys.platform == "linux":
        assert f"(pid {os.getpid()})" in str(caught.value)


def test_a_free_port_is_taken_as_it_is() -> None:
    """What was asked for is what one gets; 0 asks for any."""
    wanted = free_port()

    assert choose(wanted, variable="GATEWAY_PORT", what="gateway") == wanted
    assert choose(0, variable="GATEWAY_PORT", what="gateway") > 0


def test_nobody_holds_a_free_port(taken: int) -> None:
    """Open means that somebody listens."""
    assert is_open(taken)
    port = free_port()
    assert not is_open(port)
    assert holder(port) is None


def test_free_ports_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports asked for one after the other are different ones, also when the kernel offers one again."""
    offers = iter([50001, 50001, 50002])

    class Probe:
        def __enter__(self) -> "Probe":
            return self

        def __exit__(self, *_: object) -> None: ...

        def bind(self, address: tuple[str, int]) -> None: ...

        def getsockname(self) -> tuple[str, int]:
            return "127.0.0.1", next(offers)

    monkeypatch.setattr("socket.socket", Probe)

    assert [free_port(), free_port()] == [50001, 50002]
