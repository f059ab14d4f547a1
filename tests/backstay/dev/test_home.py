"""One home, one system; and what a killed one left is ended with care."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from backstay.dev.home import Home, HomeInUse, HomeUnusable, Recorded, Running
from backstay.dev.ports import release
from backstay.dev.processes import started_at


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    home.lock()
    yield home
    home.unlock()


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


def test_a_second_system_on_a_home_is_refused(home: Home) -> None:
    """The message says who holds it and what to do."""
    with pytest.raises(HomeInUse, match=rf"pid {os.getpid()}.*BACKSTAY_HOME"):
        Home(home.path).lock()


def test_a_home_can_be_taken_again(home: Home) -> None:
    """Unlocking, once or twice, gives the home back."""
    home.unlock()
    home.unlock()
    second = Home(home.path)
    second.lock()

    assert home.is_locked()
    second.unlock()
    assert not home.is_locked()


def test_secrets_last_and_are_private(home: Home) -> None:
    """A secret is made once, and nobody else can read it."""
    first = home.secret("admin")

    assert Home(home.path).secret("admin") == first
    assert home.secret("other") != first
    assert (home.path / "secrets" / "admin").stat().st_mode & 0o777 == 0o600
    assert (home.path / "secrets").stat().st_mode & 0o077 == 0


def test_what_was_left_is_ended(home: Home, stranger: subprocess.Popen[bytes]) -> None:
    """A recorded process with its start time is one of ours."""
    home.record([Recorded("orders", stranger.pid, started_at(stranger.pid))])

    assert home.end_leftovers() == ["orders"]
    assert stranger.wait(5) != 0
    assert home.recorded() == []


def test_a_pid_that_somebody_else_got_is_spared(home: Home, stranger: subprocess.Popen[bytes]) -> None:
    """Without a matching start time the number belongs to another process by now."""
    started = started_at(stranger.pid)
    assert started is not None
    home.record([Recorded("orders", stranger.pid, started - 1), Recorded("gateway", stranger.pid, None)])

    assert home.end_leftovers() == []
    assert stranger.poll() is None


def test_leftovers_are_not_touched_without_the_lock(tmp_path: Path) -> None:
    """While somebody holds the home, its processes are nobody else's business."""
    with pytest.raises(RuntimeError, match="holder of the lock"):
        Home(tmp_path).end_leftovers()


def running(supervisor: Recorded) -> Running:
    return Running(
        supervisor=supervisor,
        gateway="http://127.0.0.1:1",
        discovery="http://127.0.0.1:2",
        kafka="127.0.0.1:3",
        kafka_flavor="embedded",
        control=4,
        control_token="token",
        databases={"orders": "postgresql://…"},
        mail="",
    )


def test_a_running_system_can_be_found(home: Home) -> None:
    """Other commands read where everything is; nobody else can."""
    mine = running(Recorded("supervisor", os.getpid(), started_at(os.getpid())))
    home.publish(mine)

    assert Home(home.path).running() == mine
    assert (home.path / "system.json").stat().st_mode & 0o077 == 0
    home.withdraw()
    assert home.running() is None


def test_a_dead_supervisor_runs_nothing(home: Home) -> None:
    """What a killed supervisor published is no running system."""
    home.publish(running(Recorded("supervisor", os.getpid(), 1)))

    assert home.running() is None


def test_each_kind_of_broker_has_data_of_its_own(home: Home) -> None:
    """Databases live and die with their broker, and an address makes a plain folder name."""
    assert home.data("embedded") != home.data("apache")
    assert home.data("kafka.example:9092,b:1/../x").parent == home.path / "data"


def test_fixed_ports_stay(home: Home) -> None:
    """The next start finds the addresses that the last one had, and those of two processes differ."""
    ports = {name: home.port(name) for name in ("auth", "auth-2")}

    assert len(set(ports.values())) == 2
    release()
    assert {name: Home(home.path).port(name) for name in ports} == ports


def test_a_fixed_port_that_is_taken_meanwhile_is_replaced(home: Home) -> None:
    """By another one that stays."""
    port = home.port("auth")
    release()
    with socket.create_server(("127.0.0.1", port)):
        other = home.port("auth")
    release()

    assert other != port
    assert home.port("auth") == other


def test_nobody_else_reads_a_home(tmp_path: Path) -> None:
    """Neither a new one, nor one that an earlier version left open to all."""
    old = tmp_path / "old"
    for name in ("", "logs", "mail", "secrets", "data"):
        (old / name).mkdir(mode=0o755)
        (old / name).chmod(0o755)
    (old / "logs" / "orders.log").touch(mode=0o644)
    for path in (tmp_path / "new", old):
        home = Home(path)
        home.lock()
        home.secret("admin")
        home.unlock()
        for folder in (path, *(each for each in path.iterdir() if each.is_dir())):
            assert folder.stat().st_mode & 0o777 == 0o700, folder
        assert (path / "secrets" / "admin").stat().st_mode & 0o777 == 0o600


def test_a_folder_with_other_things_in_it_keeps_its_mode(tmp_path: Path) -> None:
    """BACKSTAY_HOME=/tmp must not close /tmp to everybody; what is ours in it is closed."""
    (tmp_path / "somebody's").touch()
    tmp_path.chmod(0o755)
    home = Home(tmp_path)
    home.lock()
    home.unlock()

    assert tmp_path.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "mail").stat().st_mode & 0o777 == 0o700


def test_a_home_that_cannot_be_one_is_named(tmp_path: Path) -> None:
    """A file in its place, or a folder in which nothing can be made."""
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "File exists"), (tmp_path / "file" / "home", "Not a directory")):
        with pytest.raises(HomeUnusable, match=f"{path} can't hold a system: {reason}.*BACKSTAY_HOME"):
            Home(path).lock()
