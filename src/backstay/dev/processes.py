"""Processes of this machine, by psutil: their start times, families, sizes, and the sockets they hold.

Linux alone has a death signal (see `guard`) and the proportional set size. Elsewhere, and where `BACKSTAY_PORTABLE=yes`
asks for it, children of a killed supervisor are ended by the next one, and memory is what each process has for itself.
"""

import os
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

TICKS = os.sysconf("SC_CLK_TCK")
PORTABLE = "BACKSTAY_PORTABLE"
GONE = (psutil.Error, OSError)
"""The process has ended meanwhile, or is another user's."""


def is_portable() -> bool:
    """Return whether to do without what only Linux has."""
    return sys.platform != "linux" or os.environ.get(PORTABLE, "").lower() in ("yes", "1", "true", "on")


def started_at(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot; with the pid it names one process for good.

    None when there is no such process; a zombie counts as none. A step of the system's clock changes nothing.
    """
    with suppress(*GONE):
        process = psutil.Process(pid)
        if process.status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
            return None
        while True:
            boot = float(psutil.boot_time())
            ticks = round((float(process.create_time()) - boot) * TICKS)
            if psutil.boot_time() == boot:
                return ticks
            process = psutil.Process(pid)
    return None


def memory(pids: Iterable[int]) -> int | None:
    """Return the bytes of these processes and all their descendants; None where none of them is readable.

    On Linux the proportional set size: a shared page is counted once over all processes. Elsewhere pages that a process
    shares aren't counted.
    """
    sizes = [size for pid in _families(pids) if (size := _size(pid)) is not None]
    return sum(sizes) if sizes else None


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds since its start, bytes of memory and open descriptors of a process with its descendants."""

    cpu: float
    memory: int
    descriptors: int


def costs(pids: Mapping[str, int]) -> dict[str, Cost]:
    """Return the cost of each process by name; a process that has ended is missing."""
    children = _children()
    found = {}
    for name, pid in pids.items():
        family = _family(pid, children)
        if any(psutil.pid_exists(member) for member in family):
            sizes = map(_size, family)
            found[name] = Cost(
                sum(map(cpu_seconds, family)), sum(size or 0 for size in sizes), sum(map(_descriptors, family))
            )
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and of the children it has waited for; 0 when it has ended."""
    with suppress(*GONE):
        times = psutil.Process(pid).cpu_times()
        of_children = getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return float(times.user + times.system + of_children)
    return 0.0


def owners_of(ports: Collection[int], children: Mapping[str, int]) -> dict[int, str]:
    """Return the child with a TCP socket bound to each of these local ports; `children` are pids by name."""
    wanted, owners = set(ports), dict[int, str]()
    for name, pid in children.items():
        for port in wanted & {port for port, _ in _sockets(pid)}:
            owners[port] = name
    return owners


def holder(port: int) -> str | None:
    """Return the process that listens on a port, as `name (pid 42)`; None where the system doesn't show it."""
    try:
        listening = [each.pid for each in psutil.net_connections("tcp") if _listens(each, port)]
    except psutil.AccessDenied:  # macOS shows its own sockets to each user, all of them to root alone
        listening = [each.pid for each in psutil.process_iter() if (port, True) in _sockets(each.pid)]
    return next((f"{_name(pid)} (pid {pid})" for pid in listening if pid), None)


def _sockets(pid: int) -> set[tuple[int, bool]]:
    """Return the local ports of a process's TCP sockets, and whether it listens there."""
    with suppress(*GONE):
        sockets = psutil.Process(pid).net_connections("tcp")
        return {(each.laddr.port, each.status == psutil.CONN_LISTEN) for each in sockets if each.laddr}
    return set()


def _listens(socket: Any, port: int) -> bool:
    return bool(socket.status == psutil.CONN_LISTEN and socket.laddr.port == port)


def _name(pid: int) -> str:
    with suppress(*GONE):
        process = psutil.Process(pid)
        words = process.cmdline()
        return " ".join([Path(words[0]).name, *words[1:4]]).strip() if words else str(process.name())
    return "another process"


def _size(pid: int) -> int | None:
    with suppress(*GONE):
        info = psutil.Process(pid).memory_full_info()
        return int(info.uss if is_portable() else info.pss)
    return None


def _descriptors(pid: int) -> int:
    with suppress(*GONE):
        return int(psutil.Process(pid).num_fds())
    return 0


def _families(pids: Iterable[int]) -> set[int]:
    children = _children()
    return {member for pid in pids for member in _family(pid, children)}


def _family(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    found, todo = [pid], [pid]
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += more
    return found


def _children() -> dict[int, list[int]]:
    """Return the pids of all processes by their parent's, in one pass."""
    found: dict[int, list[int]] = {}
    for process in psutil.process_iter():
        with suppress(*GONE):
            found.setdefault(process.ppid(), []).append(process.pid)
    return found
