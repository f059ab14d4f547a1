"""What a process tree weighs: proportional set size, so that a shared page is counted once over all processes."""

from collections.abc import Iterable
from pathlib import Path


def proportional_set_size(pids: Iterable[int]) -> int | None:
    """Bytes of these processes and all their descendants; None where the system doesn't tell."""
    sizes = [_pss(pid) for pid in _with_descendants(set(pids))]
    known = [size for size in sizes if size is not None]
    return sum(known) if known else None


def _with_descendants(pids: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        if (parent := _parent(process)) is not None:
            children.setdefault(parent, []).append(int(process.name))
    found, todo = set(pids), list(pids)
    while todo:
        new = [child for child in children.get(todo.pop(), ()) if child not in found]
        found.update(new)
        todo.extend(new)
    return found


def _parent(process: Path) -> int | None:
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None


def _pss(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
