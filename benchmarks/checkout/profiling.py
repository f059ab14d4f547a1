"""Where the CPU of running processes goes: py-spy on all of them at once, and the first entries of each."""

import asyncio
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

RATE = 199  # samples a second
IDLE = ("select", "epoll_wait", "poll (", "wait (threading", "_wait_for", "consume (")


async def record(pids: Mapping[str, int], folder: Path, *, seconds: float) -> None:
    """One file of collapsed stacks for each process; nothing where py-spy isn't installed."""
    spy = shutil.which("py-spy")
    if spy is None:
        print("no py-spy on the PATH: no profile", flush=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    spies = []
    for name, pid in pids.items():
        argv = [spy, "record", "--pid", str(pid), "--duration", str(int(seconds)), "--rate", str(RATE)]
        argv += ["--format", "raw", "--output", str(folder / f"{name}.txt"), "--nonblocking"]
        quiet = asyncio.subprocess.DEVNULL
        spies.append(await asyncio.create_subprocess_exec(*argv, stdout=quiet, stderr=quiet))
    await asyncio.gather(*(each.wait() for each in spies))


def summary(file: Path, *, top: int = 12) -> str:
    """The functions in which most samples were taken, and the parts under which most were: percent of all busy ones."""
    own, parts, total = Counter[str](), Counter[str](), 0
    for line in file.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        if any(word in frames[-1] for word in IDLE):
            continue
        total += int(count)
        own[_short(frames[-1])] += int(count)
        for part in {_part(frame) for frame in frames}:
            parts[part] += int(count)
    lines = [f"{file.stem}: {total} busy samples"]
    lines += [f"  {100 * count / total:5.1f} %  {name}" for name, count in own.most_common(top)]
    under = ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in parts.most_common(14) if name)
    return "\n".join([*lines, f"  under: {under}"])


def _short(frame: str) -> str:
    return re.sub(r"^(\S+) \((?:.*/)?([^/]+/[^/:]+)(?::\d+)?\)$", r"\1 (\2)", frame)


def _part(frame: str) -> str:
    """The package that a frame is in."""
    found = re.search(r"\((?:.*site-packages/|.*/src/)?([\w/.]+?)(?::\d+)?\)", frame)
    if not found:
        return ""
    words = found[1].removesuffix(".py").split("/")
    return ".".join(words[:2]) if words[0] in ("backstay", "shop") else words[0]
