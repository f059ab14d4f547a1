"""A program to run as a child of ours: what, as whom, where its output goes, and how it ends.

Every child leads a session of its own, so that Ctrl-C reaches the supervisor alone, and asks the kernel (where it can)
to be ended when the supervisor dies, however it dies.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backstay.dev import guard
from backstay.dev.account import Account
from backstay.dev.processes import is_portable


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One child process, described."""

    name: str
    argv: tuple[str, ...]
    log: Path
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    account: Account | None = None
    stop_signal: int = signal.SIGTERM
    orphan_signal: int = signal.SIGKILL
    """What it gets from the kernel when the supervisor is gone (Linux; elsewhere the next supervisor ends it)."""
    patience: float = 12.0
    """Seconds between `stop_signal` and SIGKILL."""

    def command(self) -> list[str]:
        """Return the command line, with the step that ties it to us before it."""
        uid, gid = (self.account.uid, self.account.gid) if self.account else (-1, -1)
        tie = [os.getpid(), 0 if is_portable() else int(self.orphan_signal), uid, gid]
        return [sys.executable, "-I", "-S", guard.__file__, *map(str, tie), *self.argv]

    def options(self) -> dict[str, Any]:
        """Keyword arguments for `subprocess.Popen` and `asyncio.create_subprocess_exec` alike (output excepted)."""
        return {"env": dict(self.env), "cwd": self.cwd, "stdin": subprocess.DEVNULL, "start_new_session": True}


def spawn(program: Program) -> subprocess.Popen[bytes]:
    """Start `program`, its output appended to its log."""
    program.log.parent.mkdir(parents=True, exist_ok=True)
    with program.log.open("ab") as log:
        return subprocess.Popen(program.command(), stdout=log, stderr=subprocess.STDOUT, **program.options())  # noqa: S603


def stop(process: subprocess.Popen[bytes], program: Program) -> int:
    """Terminate the process, kill it after `patience`; returns its exit status."""
    if process.poll() is None:
        process.send_signal(program.stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(program.patience)
        kill_session(process.pid)
    return process.wait()


_helpers: set[int] = set()
_stopping = threading.Event()


def run(argv: Sequence[str], *, timeout: float, text: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, its output as text; `end_helpers` ends it early, from another thread.

    Raises subprocess.TimeoutExpired after `timeout` seconds.
    """
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(argv, **{**options, **streams, "start_new_session": True}) as process, helping(process):  # noqa: S603
        out, err = process.communicate(text, timeout)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


@contextlib.contextmanager
def helping(process: "subprocess.Popen[Any]") -> Iterator[None]:
    """Let `end_helpers` end the process inside the block; whatever ends the block ends the process."""
    _helpers.add(process.pid)
    if _stopping.is_set():
        kill_session(process.pid)
    try:
        yield
    finally:
        _helpers.discard(process.pid)
        if process.poll() is None:
            kill_session(process.pid)


def allow_helpers() -> None:
    """Undo `end_helpers` for programs that start from now on."""
    _stopping.clear()


def end_helpers() -> None:
    """End every program that some thread waits for, or will wait for, so that a stop needn't wait for it."""
    _stopping.set()
    for pid in list(_helpers):
        kill_session(pid)


def kill_session(pid: int) -> None:
    """SIGKILL to a child and whatever it started: each child leads a process group of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tail_of(log: Path, lines: int = 8) -> str:
    """Return the last lines of a log, for a message that reports a dead process."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def wait_until(
    ready: Callable[[], bool], process: subprocess.Popen[bytes], program: Program, *, timeout: float
) -> None:
    """Poll `ready` every 30 ms; RuntimeError with the log's end when the process dies or the time is over."""
    until = time.monotonic() + timeout
    while not ready():
        if (code := process.poll()) is not None:
            raise RuntimeError(f"{program.name} ended with status {code}:\n{tail_of(program.log)}")
        if time.monotonic() > until:
            raise RuntimeError(f"{program.name} wasn't ready after {timeout:g} s:\n{tail_of(program.log)}")
        time.sleep(0.03)
