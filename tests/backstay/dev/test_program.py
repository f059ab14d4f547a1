"""Children end with us, whoever ends us."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backstay.dev.processes import PORTABLE, memory, started_at
from backstay.dev.program import Program, spawn, stop, tail_of, wait_until
from backstay.testing import eventually

PARENT = """
import sys
from pathlib import Path
from backstay.dev.program import Program, spawn
child = spawn(Program(name="child", argv=("sleep", "60"), log=Path(sys.argv[1]), env={"PATH": "/usr/bin:/bin"}))
print(child.pid, flush=True)
sys.stdin.read()
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children of their parent's death")


@linux
async def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """Even kill -9 of the supervisor leaves nobody behind."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout
    child = int(parent.stdout.readline())
    assert started_at(child)
    parent.kill()
    parent.communicate()

    await eventually(lambda: started_at(child) is None)


def test_output_goes_to_the_log(tmp_path: Path) -> None:
    """Both streams are appended; the tail of it explains a death."""
    program = Program(
        name="talker", argv=(sys.executable, "-c", "import sys; print('a'); sys.exit('b')"), log=tmp_path / "logs" / "t"
    )
    for _ in range(2):
        assert spawn(program).wait(10) == 1

    assert sorted(tail_of(program.log).split()) == ["a", "a", "b", "b"]
    assert tail_of(program.log, lines=1) in "ab"
    assert tail_of(tmp_path / "nothing") == ""


def test_a_program_that_dies_is_not_waited_for(tmp_path: Path) -> None:
    """Waiting ends with the reason, not with the time-out."""
    program = Program(name="dead", argv=(sys.executable, "-c", "raise SystemExit('broken')"), log=tmp_path / "log")

    with pytest.raises(RuntimeError, match=r"dead ended with status 1:\nbroken"):
        wait_until(lambda: False, spawn(program), program, timeout=10)


def test_stop_is_firm(tmp_path: Path) -> None:
    """A program that ignores its stop signal is killed."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    program = Program(name="deaf", argv=(sys.executable, "-c", code), log=tmp_path / "log", patience=0.1)
    process = spawn(program)
    wait_until(lambda: "up" in tail_of(program.log), process, program, timeout=10)

    assert stop(process, program) == -signal.SIGKILL
    assert stop(process, program) == -signal.SIGKILL


def test_a_process_is_known_by_its_start() -> None:
    """The same process has the same start time; a pid of nobody has none."""
    assert started_at(os.getpid()) == started_at(os.getpid()) is not None
    assert started_at(2**22 + 1) is None


@pytest.mark.parametrize("portable", ["no", "yes"])
def test_memory_counts_a_tree(portable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children count too, with the proportional set size and without."""
    monkeypatch.setenv(PORTABLE, portable)
    alone = memory([os.getpid()])
    child = subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], stdin=-1, stdout=-1)
    assert child.stdout
    child.stdout.readline()
    both = memory([os.getpid()])
    child.communicate(b"\n")

    assert alone is not None
    assert both is not None
    assert both > alone > 1_000_000
