import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backstay import faults
from backstay.errors import ConfigError
from backstay.testing import FaultFile, armed, eventually


async def test_unarmed_point_does_nothing() -> None:
    """A point that nobody armed has no effect."""
    with armed("other.point=error"):
        await faults.point("a.point")
        faults.point_sync("a.point")


async def test_error() -> None:
    """`error` raises, every time, saying which entry did it."""
    with armed("a.point=error"):
        for _ in range(2):
            with pytest.raises(faults.Injected, match=r"a\.point.*error"):
                await faults.point("a.point")


async def test_limited_times() -> None:
    """`*k` stops after k firings."""
    with armed("a.point=error*2"):
        for _ in range(2):
            with pytest.raises(faults.Injected):
                faults.point_sync("a.point")
        faults.point_sync("a.point")


async def test_nth_hit() -> None:
    """`@n` lets the hits before the n-th pass, and fires once."""
    with armed("a.point=error@3"):
        faults.point_sync("a.point")
        faults.point_sync("a.point")
        with pytest.raises(faults.Injected):
            faults.point_sync("a.point")
        faults.point_sync("a.point")


async def test_percent() -> None:
    """`fail:0` never fires and `fail:100` always does."""
    with armed("never=fail:0,always=fail:100"):
        await faults.point("never")
        with pytest.raises(faults.Injected):
            await faults.point("always")


async def test_delay() -> None:
    """`delay` waits, then goes on."""
    with armed("a.point=delay:0.01"):
        started = asyncio.get_running_loop().time()
        await faults.point("a.point")
        faults.point_sync("a.point")

        assert asyncio.get_running_loop().time() - started >= 0.02


async def test_hang_ends_when_disarmed(tmp_path: Path) -> None:
    """`hang` holds the caller until the entry is taken out of the file."""
    file = FaultFile(tmp_path / "faults")
    file.arm("a.point=hang")
    before = faults.install(faults.Plan(file=file.path))
    try:
        task = asyncio.create_task(faults.point("a.point"))
        await asyncio.sleep(0)
        assert not task.done()

        file.disarm()
        await eventually(task.done)
    finally:
        faults.install(before)


@pytest.mark.parametrize(
    "text", ["a.point", "a.point=explode", "a.point=delay", "a.point=error:3", "=error", "a=kill*x"]
)
def test_bad_entry(text: str) -> None:
    """An entry that can't be read is a ConfigError that quotes it."""
    with pytest.raises(ConfigError, match="FAULTS"):
        faults.parse(text)


def test_comments_and_lines() -> None:
    """Entries come one per line or comma-separated; comments are skipped."""
    read = faults.parse("a=error, b=delay:1.5@2*3 # why\n# nothing\nc=kill\n")

    assert [(f.name, f.action, f.value, f.start, f.times) for f in read] == [
        ("a", "error", 0.0, 1, None),
        ("b", "delay", 1.5, 2, 3),
        ("c", "kill", 0.0, 1, 1),
    ]


def test_plan_from_environment(tmp_path: Path) -> None:
    """Without either variable there is no plan at all; the file may appear later."""
    assert faults.Plan.read({}) is None
    plan = faults.Plan.read({"FAULTS": "a=error", "FAULTS_FILE": str(tmp_path / "later")})
    assert plan is not None
    assert plan.take("b") is None

    FaultFile(tmp_path / "later").arm("b=error")

    assert plan.take("a") is not None
    assert plan.take("b") is not None


def test_kill_fires_once_across_restarts(tmp_path: Path) -> None:
    """A process that was killed at a point passes it after its restart."""
    file = FaultFile(tmp_path / "faults")
    file.arm("a.point=kill")
    command = [sys.executable, "-c", "from backstay import faults; faults.point_sync('a.point'); print('passed')"]
    environ = {**os.environ, "FAULTS_FILE": str(file.path)}

    first = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    second = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    assert first.returncode == -signal.SIGKILL
    assert (second.returncode, second.stdout) == (0, "passed\n")
    assert file.spent() == ["a.point=kill"]
