"""A test run that is told to stop stops, and leaves nobody behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from backstay.dev.processes import started_at
from backstay.testing import eventually

ROOT = Path(__file__).parents[2]
BUSY = """
import os, signal, subprocess, sys, time
from pathlib import Path

def test_busy(worker_id):
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    children = [
        subprocess.Popen(["sleep", "60"], start_new_session=True),
        subprocess.Popen([sys.executable, "-c", deaf]),
        subprocess.Popen(["sh", "-c", "sleep 60 & wait"]),
    ]
    time.sleep(0.5)
    pids = " ".join(str(pid) for pid in (os.getpid(), *(child.pid for child in children)))
    Path("busy.new").write_text(pids)
    Path("busy.new").rename("busy")
    time.sleep(60)
"""
SOON = 2.0  # seconds


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_stopped_run_leaves_nobody(tmp_path: Path, number: int) -> None:
    """The controller alone gets the signal, as from `kill`; workers and their children end within two seconds."""
    (tmp_path / "test_busy.py").write_text(BUSY)
    argv = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "tests.interrupts", "-p", "no:cacheprovider"]
    run = subprocess.Popen(
        [*argv, "-c", os.devnull, "--rootdir", str(tmp_path), "test_busy.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    await eventually((tmp_path / "busy").exists, timeout=100)
    pids = [int(word) for word in (tmp_path / "busy").read_text().split()]
    assert all(map(started_at, pids))

    run.send_signal(number)
    await eventually(lambda: run.poll() is not None and not any(map(started_at, pids)), timeout=SOON)
    printed, _ = run.communicate()
    assert run.returncode in (2, 128 + number), printed
