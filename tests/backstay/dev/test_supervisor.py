"""Children are started, watched, revived and ended; none is left behind."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from backstay.dev.home import Home
from backstay.dev.processes import started_at
from backstay.dev.program import Program
from backstay.dev.supervisor import Died, NotReady, Supervisor
from backstay.testing import eventually

WAIT = "import sys, time\nprint('here', flush=True)\ntime.sleep(60)"
STUBBORN = (
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('here', flush=True)\ntime.sleep(60)"
)


@pytest.fixture
async def told() -> list[str]:
    return []


@pytest.fixture
async def supervisor(tmp_path: Path, told: list[str]) -> AsyncIterator[Supervisor]:
    home = Home(tmp_path)
    home.lock()
    supervisor = Supervisor(home, told.append)
    yield supervisor
    await supervisor.close(())
    assert supervisor.pids() == []
    home.unlock()


def program(folder: Path, name: str = "child", code: str = WAIT, patience: float = 5.0) -> Program:
    return Program(name=name, argv=(sys.executable, "-c", code), log=folder / f"{name}.log", patience=patience)


def says_here(child: Program) -> bool:
    return child.log.exists() and "here" in child.log.read_text()


async def test_a_dead_child_is_started_again(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    """Once the system is up, a death is said and undone."""
    await supervisor.add(program(tmp_path))
    supervisor.settle()
    first = supervisor.pids()
    supervisor.kill("child", signal.SIGKILL)

    await eventually(lambda: supervisor.pids() and supervisor.pids() != first)
    assert told == ["child ended (signal 9); starting it again in 0.5 s"]
    assert supervisor.statistics()[0].restarts == 1


async def test_a_death_while_starting_is_a_failure(supervisor: Supervisor, tmp_path: Path) -> None:
    """The message carries the end of the log."""
    await supervisor.add(program(tmp_path, code="print('no luck today'); raise SystemExit(3)"))

    failure = await asyncio.wait_for(supervisor.failure, 10)
    assert isinstance(failure, Died)
    assert "status 3" in str(failure)
    assert "no luck today" in str(failure)


async def test_a_vital_death_is_a_failure_at_any_time(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    """Nobody revives what has forgotten everything."""
    await supervisor.add(program(tmp_path), vital=True)
    supervisor.settle()
    supervisor.kill("child", signal.SIGKILL)

    assert isinstance(await asyncio.wait_for(supervisor.failure, 10), Died)
    assert told == []


async def test_waiting_for_one_notices_the_death_of_another(supervisor: Supervisor, tmp_path: Path) -> None:
    """Whoever dies during the start ends the start."""
    await supervisor.add(program(tmp_path, "healthy"))
    await supervisor.add(program(tmp_path, "ill", "raise SystemExit(1)"))

    async def never() -> bool:
        return False

    with pytest.raises(Died, match="ill ended"):
        await supervisor.ready("healthy", never, timeout=10)


async def test_what_is_not_ready_in_time_is_named(supervisor: Supervisor, tmp_path: Path) -> None:
    """The message says who, how long, and what its log says."""
    child = program(tmp_path)
    await supervisor.add(child)
    await eventually(lambda: says_here(child))

    async def never() -> bool:
        return False

    with pytest.raises(NotReady, match=r"child wasn't ready after 0\.1 s.*\n.*here"):
        await supervisor.ready("child", never, timeout=0.1)


async def test_a_stopped_child_stays_stopped(supervisor: Supervisor, told: list[str], tmp_path: Path) -> None:
    """Stopping on purpose isn't a death."""
    await supervisor.add(program(tmp_path))
    supervisor.settle()
    await supervisor.stop("child")

    assert supervisor.pids() == []
    assert told == []
    await supervisor.start("child")
    await supervisor.start("child")
    assert len(supervisor.pids()) == 1


async def test_who_does_not_listen_is_killed(supervisor: Supervisor, tmp_path: Path) -> None:
    """After its patience is over a child is ended for good."""
    child = program(tmp_path, code=STUBBORN, patience=0.2)
    await supervisor.add(child)
    await eventually(lambda: says_here(child))
    await supervisor.stop("child")

    assert supervisor.pids() == []


async def test_groups_end_one_after_the_other(supervisor: Supervisor, tmp_path: Path) -> None:
    """Callers end before those they call; whoever is in no group ends last."""
    end = "import signal, sys, time\ndef bye(*_): print('bye', time.time(), flush=True); sys.exit()\n"
    code = f"{end}signal.signal(signal.SIGTERM, bye)\nprint('here', flush=True)\ntime.sleep(60)"
    children = {name: program(tmp_path, name, code) for name in ("database", "orders", "gateway")}
    for child in children.values():
        await supervisor.add(child)
    await eventually(lambda: all(map(says_here, children.values())))
    await supervisor.close((("gateway",), ("orders",)))

    ended = {name: float(child.log.read_text().split()[-1]) for name, child in children.items()}
    assert sorted(ended, key=ended.__getitem__) == ["gateway", "orders", "database"]


async def test_everything_can_be_ended_at_once(supervisor: Supervisor, tmp_path: Path) -> None:
    """A second Ctrl-C asks nobody."""
    for name in ("one", "two"):
        await supervisor.add(program(tmp_path, name, STUBBORN))
    pids = supervisor.pids()
    supervisor.kill_all()

    await eventually(lambda: not any(map(started_at, pids)))


async def test_an_unknown_name_is_refused(supervisor: Supervisor, tmp_path: Path) -> None:
    """The message lists those there are."""
    await supervisor.add(program(tmp_path))

    with pytest.raises(KeyError, match="there are: child"):
        await supervisor.stop("nobody")
