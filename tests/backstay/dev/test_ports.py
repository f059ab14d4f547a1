"""Ports: free ones, and who has the taken ones."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from backstay.dev.ports import PortTaken, choose, free_port, holder, is_open

ELSEWHERE = """
import random, sys
from backstay.dev.ports import free_port

offers = iter([int(sys.argv[1]), *range(30_999, 30_000, -1)])
random.choice = lambda _range: next(offers)
print(free_port())
"""


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
    """What was handed out and isn't listened on yet is handed out to nobody else, not even in another process."""
    first = free_port()
    offers = iter([first, first, *range(31_999, 31_000, -1)])
    monkeypatch.setattr("random.choice", lambda _range: next(offers))
    assert free_port() != first

    told = subprocess.run([sys.executable, "-c", ELSEWHERE, str(first)], capture_output=True, text=True, check=True)
    assert int(told.stdout) != first
