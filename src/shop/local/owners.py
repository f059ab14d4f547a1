"""Whose socket is that: the child process behind a local port, as the kernel tells it (Linux; nobody elsewhere)."""

import os
from collections.abc import Mapping
from pathlib import Path

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def owner_of(port: int, children: Mapping[str, int]) -> str | None:
    """The name of the child that has a socket bound to local `port`; `children` are pids by name."""
    inodes = inodes_of(port)
    if not inodes:
        return None
    return next((name for name, pid in children.items() if inodes & _sockets(pid)), None)


def inodes_of(port: int) -> frozenset[str]:
    """The sockets bound to a local port, as `/proc/<pid>/fd` names them."""
    found = set()
    for table in TABLES:
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        ending = f":{port:04X}"
        found |= {f"socket:[{columns[9]}]" for columns in map(str.split, rows) if columns[1].endswith(ending)}
    return frozenset(found)


def _sockets(pid: int) -> set[str]:
    folder = f"/proc/{pid}/fd"
    found = set()
    try:
        for entry in os.listdir(folder):
            try:
                target = os.readlink(f"{folder}/{entry}")
            except OSError:
                continue
            if target.startswith("socket:"):
                found.add(target)
    except OSError:  # gone meanwhile
        return set()
    return found
