"""Whose sockets are those: the children behind local ports, as the kernel tells it (Linux; nobody elsewhere)."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

TABLES = ("/proc/net/tcp", "/proc/net/tcp6")


def owners_of(ports: Collection[int], children: Mapping[str, int]) -> dict[int, str]:
    """The name of the child that has a socket bound to each of these local ports; `children` are pids by name.

    One pass over the kernel's tables however many ports there are: it takes some ten milliseconds.
    """
    sockets = _sockets_by_port(set(ports))
    by_socket = {socket: port for port, found in sockets.items() for socket in found}
    owners: dict[int, str] = {}
    for name, pid in children.items():
        for socket in _sockets(pid) & by_socket.keys():
            owners[by_socket[socket]] = name
    return owners


def _sockets_by_port(ports: set[int]) -> dict[int, set[str]]:
    """Sockets bound to local ports, as `/proc/<pid>/fd` names them."""
    found: dict[int, set[str]] = {}
    for table in TABLES:
        try:
            rows = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, rows):
            port = int(columns[1].rpartition(":")[2], 16)
            if port in ports:
                found.setdefault(port, set()).add(f"socket:[{columns[9]}]")
    return found


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
