"""Whole systems of few services: up, refused, side by side, down, and nothing left behind."""

import asyncio
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from rich.console import Console

from backstay.dev import account, registry
from backstay.dev.home import Home, HomeInUse
from backstay.dev.ports import PortTaken, is_open
from backstay.dev.processes import started_at
from backstay.dev.screen import Screen
from backstay.dev.supervisor import Died
from backstay.dev.web import Web
from backstay.testing import eventually
from lab.system.control import ControlRefused, tell
from lab.system.options import Options
from lab.system.system import System
from shop import topology

SERVICES = (topology.DISCOVERY, topology.CATALOG)
ALONE = """
import asyncio, sys
from pathlib import Path
from shop import topology
from lab.demo import up
from lab.system.options import Options
from lab.system.system import System
from backstay.dev.screen import Screen
from backstay.dev.stopping import until_stopped

async def main():
    options = Options(home=Path(sys.argv[1]), gateway_port=0, discovery_port=0)
    system = System(options, services=(topology.DISCOVERY, topology.CATALOG))
    async def live():
        async with system:
            print("up", flush=True)
            await asyncio.sleep(120)
    await until_stopped(live(), at_once=system.kill, tell=print)

asyncio.run(main())
"""

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("system")]


@pytest.fixture
def home() -> Iterator[Path]:
    """Where also an account without rights can go, as a clone is."""
    import shutil

    path = Path("/tmp") / f"backstay-home-{uuid4().hex[:12]}"
    yield path
    account.remove_bases(path)
    shutil.rmtree(path, ignore_errors=True)


def system(home: Path, output: io.StringIO | None = None) -> System:
    screen = Screen(Console(file=output or io.StringIO(), width=200))
    return System(Options(home=home, gateway_port=0, discovery_port=0), screen, services=SERVICES)


async def test_a_system_comes_up_and_goes_down(home: Path) -> None:
    """Entering means ready and registered; leaving means no process, no lock, no record."""
    async with system(home) as one:
        pids = one.supervisor.pids()
        async with Web(one.running.discovery) as discovery:
            assert await registry.missing(discovery, ("catalog",)) == []
        assert Home(home).running() == one.running
        assert (one.memory() or 0) > 10_000_000

    assert [pid for pid in pids if started_at(pid)] == []
    assert not Home(home).is_locked()
    assert Home(home).running() is None


async def test_two_systems_run_side_by_side(home: Path) -> None:
    """Another home and free ports are enough; the same home is refused."""
    async with system(home) as one:
        async with system(home / "second") as two:
            assert one.running.discovery != two.running.discovery
            assert one.running.databases != two.running.databases
        with pytest.raises(HomeInUse):
            await system(home).__aenter__()
        assert is_open(int(one.running.kafka.rpartition(":")[2]))


async def test_a_taken_port_stops_the_start(home: Path) -> None:
    """Nothing is started when it can't be finished, and the home is free again."""
    async with system(home) as one:
        taken = int(one.running.discovery.rpartition(":")[2])
        second = System(Options(home=home / "second", gateway_port=0, discovery_port=taken), one.screen)
        with pytest.raises(PortTaken, match=f"Port {taken}"):
            await second.__aenter__()
        assert not second.home.is_locked()


async def test_a_service_is_revived_and_can_be_told(home: Path) -> None:
    """An accident is undone and said; another command can stop and start what runs."""
    output = io.StringIO()
    async with system(home, output) as one:
        first = {child.name: child.pid for child in one.supervisor.statistics()}
        assert (await tell(one.running, "environment", "catalog"))["DATABASE_URL"] == one.running.databases["catalog"]
        await _shows_what_runs(home, one)
        await tell(one.running, "kill", "catalog")
        await eventually(lambda: _pid(one, "catalog") not in (None, first["catalog"]), timeout=20)
        await tell(one.running, "stop", "catalog")
        assert _pid(one, "catalog") is None
        await tell(one.running, "start", "catalog")
        assert _pid(one, "catalog") is not None
        with pytest.raises(ControlRefused, match="there are: "):
            await tell(one.running, "stop", "nobody")

    assert "catalog ended (signal 9); starting it again" in output.getvalue()


async def test_the_embedded_brokers_death_is_the_end(home: Path) -> None:
    """It keeps nothing on disk, so nobody may go on as if it did."""
    async with system(home) as one:
        one.supervisor.kill("kafka", signal.SIGKILL)
        failure = await asyncio.wait_for(one.supervisor.failure, 10)

    assert isinstance(failure, Died)
    assert "kafka ended" in str(failure)


async def test_databases_start_empty_with_a_new_embedded_broker(home: Path) -> None:
    """What the broker forgot the databases forget, and it is said."""
    output = io.StringIO()
    async with system(home) as one:
        folder = one.home.data("embedded") / "postgres"
        marker = account.reachable_base(folder, account.unprivileged()) / "data" / "PG_VERSION"
        first = marker.stat().st_mtime_ns
    async with system(home, output):
        assert marker.stat().st_mtime_ns != first

    assert "start empty with it" in output.getvalue().replace("\n", " ")


async def test_a_killed_supervisor_leaves_nothing_for_long(home: Path) -> None:
    """Its children end by themselves, and the next start works."""
    process = _start_alone(home)
    left = [child.pid for child in Home(home).recorded()]
    assert len(left) == 4
    process.kill()
    process.communicate()

    await eventually(lambda: not any(map(started_at, left)), timeout=20)
    async with system(home) as one:
        assert one.running.gateway


async def test_without_a_death_signal_the_next_start_ends_what_a_killed_supervisor_left(home: Path) -> None:
    """On a system other than Linux the children outlive their supervisor, until the next one takes the home."""
    process = _start_alone(home, BACKSTAY_PORTABLE="yes")
    left = Home(home).recorded()
    process.kill()
    process.communicate()
    assert all(child.is_alive() for child in left)

    output = io.StringIO()
    async with system(home, output) as one:
        assert one.running.gateway
        assert not any(child.is_alive() for child in left)
    assert "ended what an earlier run left: " in output.getvalue()


async def test_two_interrupts_leave_nothing(home: Path) -> None:
    """Whoever doesn't want to wait leaves a clean machine too."""
    process = _start_alone(home)
    left = [child.pid for child in Home(home).recorded()]
    process.send_signal(signal.SIGINT)
    assert process.stdout
    assert "stopping" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)

    await eventually(lambda: not any(map(started_at, left)), timeout=10)
    assert not Home(home).is_locked()


async def _shows_what_runs(home: Path, one: System) -> None:
    """`./shop config` and `./shop url` show the running system's values, not the shell's."""
    env = {**os.environ, "BACKSTAY_HOME": str(home), "LOG_LEVEL": "error", "KAFKA": "elsewhere:1"}

    async def shop(*words: str) -> str:
        argv = [sys.executable, "-m", "lab", *words]
        done = await asyncio.to_thread(subprocess.run, argv, env=env, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    config, shell = await shop("config", "catalog"), await shop("config", "catalog", "--shell")
    password = one.running.databases["catalog"].partition("@")[0].rpartition(":")[2]

    assert "as it runs" in config
    assert one.running.kafka in config
    assert password not in config
    assert "elsewhere:1" in shell
    assert (await shop("url", "catalog")).strip() == one.running.databases["catalog"]
    assert "these have: " in await shop("url", "gateway")
    assert "there is no 'orders'" in await shop("config", "orders")


def _start_alone(home: Path, **more: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONUNBUFFERED": "1", **more}
    process = subprocess.Popen([sys.executable, "-c", ALONE, str(home)], stdout=subprocess.PIPE, text=True, env=env)
    assert process.stdout
    for line in process.stdout:
        if line == "up\n":
            return process
    raise AssertionError(f"it ended with status {process.wait()}")


def _pid(one: System, name: str) -> int | None:
    return next(child.pid for child in one.supervisor.statistics() if child.name == name)
