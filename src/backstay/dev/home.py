"""BACKSTAY_HOME: one folder with a whole system's state, and the lock of the process that runs it.

The lock is the kernel's (flock), so it is free as soon as its holder is gone, however that went. Children are recorded
with their start times: what a killed supervisor left is ended only while we hold the lock, and only what matches.
"""

import fcntl
import json
import os
import secrets
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TextIO

from backstay.dev.ports import free_port, reserve
from backstay.dev.processes import started_at
from backstay.dev.program import kill_session

PORTS = "ports.json"
PRIVATE = ("data", "faults", "logs", "mail", "secrets")
"""Folders with what nobody else may read: customers' data and mails, logs, fault points, secrets."""
OURS = frozenset({*PRIVATE, "lock", "processes.json", "system.json", "load.svg", PORTS})
"""What a home that nobody put anything else into consists of."""
SECRET_BYTES = 24
DEATH_TIMEOUT = 10.0  # seconds until a process that was killed must be gone


class HomeInUse(RuntimeError):
    """Another system runs on this home."""


class HomeUnusable(RuntimeError):
    """The folder can't be created or written, for the reason in the message."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """A child on record: with its start time a pid names one process for ever."""

    name: str
    pid: int
    started: int | None

    def is_alive(self) -> bool:
        """Return whether this very process still runs (not another one with its number)."""
        return self.started is not None and started_at(self.pid) == self.started


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """The facts of a running system for other commands, in `system.json` (readable by its owner only)."""

    supervisor: Recorded
    gateway: str
    discovery: str
    kafka: str
    kafka_flavor: str
    control: int
    control_token: str = field(repr=False)
    databases: dict[str, str] = field(repr=False)
    mail: str
    kafka_settings: dict[str, str] = field(default_factory=dict, repr=False)
    """TLS and SASL of a broker that isn't ours, as services are told."""
    gateways: list[str] = field(default_factory=list)
    """Every gateway's address; `gateway` is the first."""


class Home:
    """The folder, its lock, its secrets and its records."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._lock: TextIO | None = None

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.path / "logs"

    @property
    def mail(self) -> Path:
        """The mails that the local mail catcher stored."""
        return self.path / "mail"

    def data(self, broker: str) -> Path:
        """Databases and broker share a lifetime, so each kind of broker has a folder of both."""
        return self.path / "data" / "".join(c if c.isalnum() or c in ".-" else "_" for c in broker)

    def lock(self) -> None:
        """Take the home; raises HomeInUse, and HomeUnusable for a folder that can't be one."""
        try:
            self._close_to_others()
            lock = (self.path / "lock").open("a+")
        except OSError as error:
            raise HomeUnusable(
                f"{self.path} can't hold a system: {error.strerror}. Name a folder with BACKSTAY_HOME"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise HomeInUse(
                f"{self.path} is in use by {holder}. Stop that process first, "
                "or start a second system with BACKSTAY_HOME=<another folder> GATEWAY_PORT=0 DISCOVERY_PORT=0."
            ) from error
        lock.truncate(0)
        lock.write(f"pid {os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _close_to_others(self) -> None:
        """Make the home and what is private in it readable by its owner only, also what an earlier version left open.

        A folder that somebody chose and that has other things in it keeps its mode: only what is ours is closed.
        """
        known = self.path.is_dir()
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not known or not {entry.name for entry in self.path.iterdir()} - OURS:
            self.path.chmod(0o700)
        for name in PRIVATE:
            folder = self.path / name
            folder.mkdir(exist_ok=True, mode=0o700)
            folder.chmod(0o700)

    def unlock(self) -> None:
        """Give the home back; no effect when it isn't held."""
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def is_locked(self) -> bool:
        """Return whether some process holds it now."""
        try:
            with (self.path / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    def secret(self, name: str) -> str:
        """Return a secret of this home, created at its first use; readable by its owner only."""
        folder = self.path / "secrets"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = folder / name
        if not file.exists():
            _write_private(file, secrets.token_urlsafe(SECRET_BYTES))
        return file.read_text().strip()

    def port(self, name: str) -> int:
        """Return the fixed port of a process, chosen once: a restart finds it the same while it is free."""
        kept: dict[str, int] = self._read(PORTS) or {}
        if name not in kept or not reserve(kept[name]):
            kept[name] = free_port()
            self._write(PORTS, kept)
        return kept[name]

    def record(self, children: list[Recorded]) -> None:
        """Put the children of now on record, at once and whole."""
        self._write("processes.json", [asdict(child) for child in children])

    def recorded(self) -> list[Recorded]:
        """Return the children on record."""
        return [Recorded(**entry) for entry in self._read("processes.json") or []]

    def end_leftovers(self) -> list[str]:
        """Kill what is on record and still the same process; only with the lock held. Returns their names."""
        if self._lock is None:
            raise RuntimeError("leftovers are ended by the holder of the lock only")
        left = [child for child in self.recorded() if child.is_alive()]
        for child in left:
            os.kill(child.pid, signal.SIGQUIT if child.name == "postgres" else signal.SIGKILL)
        until = time.monotonic() + DEATH_TIMEOUT
        while any(child.is_alive() for child in left) and time.monotonic() < until:
            time.sleep(0.05)
        for child in left:
            if child.is_alive():
                kill_session(child.pid)
        self.record([])
        return [child.name for child in left]

    def publish(self, running: Running) -> None:
        """Write the facts of the running system for other commands."""
        self._write("system.json", asdict(running))

    def withdraw(self) -> None:
        """The system is no more."""
        (self.path / "system.json").unlink(missing_ok=True)

    def running(self) -> Running | None:
        """Return the system that runs on this home, if one does."""
        entry = self._read("system.json")
        if entry is None:
            return None
        running = Running(**{**entry, "supervisor": Recorded(**entry["supervisor"])})
        return running if running.supervisor.is_alive() else None

    def _write(self, name: str, value: object) -> None:
        _write_private(self.path / name, json.dumps(value, indent=1))

    def _read(self, name: str):  # type: ignore[no-untyped-def]  # JSON has no type
        try:
            return json.loads((self.path / name).read_text())
        except (FileNotFoundError, ValueError):
            return None


def _write_private(file: Path, text: str) -> None:
    """Whole or not at all, and never readable by others."""
    half = file.with_name(f"{file.name}.new")
    with os.fdopen(os.open(half, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "w") as new:
        new.write(text)
    half.rename(file)
