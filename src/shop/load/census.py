"""What processes cost: CPU, memory and descriptors by name, from /proc; children count for who started them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shop.local.memory import proportional_set_size

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU seconds since its start, resident bytes and open descriptors of a process with its children."""

    cpu: float
    memory: int
    descriptors: int


def census(pids: Mapping[str, int]) -> dict[str, Cost]:
    """The cost of each, by name; who is gone is missing."""
    children = _children()
    found = {}
    for name, pid in pids.items():
        family = _family(pid, children)
        if any(Path(f"/proc/{member}").exists() for member in family):
            found[name] = Cost(
                sum(map(_cpu, family)),
                proportional_set_size([pid]) or 0,
                sum(map(_descriptors, family)),
            )
    return found


def _family(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    found, todo = [pid], [pid]
    while todo:
        more = children.get(todo.pop(), [])
        found += more
        todo += more
    return found


def _children() -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        columns = _stat(int(process.name))
        if columns:
            found.setdefault(int(columns[1]), []).append(int(process.name))
    return found


def _cpu(pid: int) -> float:
    """User and system time of it and of the children it has waited for (autovacuum, ended sessions)."""
    columns = _stat(pid)
    return sum(map(int, columns[11:15])) / TICKS if columns else 0.0


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
