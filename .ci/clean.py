"""Remove what was made in this checkout: environment, state with its databases wherever they lie, caches.

Run by `make clean` with any Python ≥ 3.11; needs the standard library alone, so it works without `.venv`, too. Refuses
with status 2 while an installation or a system of this checkout runs.
"""

import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import install  # noqa: E402
from backstay.dev import account  # noqa: E402 - needs the standard library alone

ROOT = install.ROOT

HOME = ROOT / ".backstay"
MADE = (
    install.VENV,
    install.NEW,
    install.OLD,
    HOME,
    *(ROOT / name for name in (".cache", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")),
    *(ROOT / name for name in (".import_linter_cache", "dist", "build")),
)
COMPILED = ("src", "tests", "examples", "benchmarks", ".ci")
"""Folders of ours with compiled modules in them."""


class InUse(Exception):
    """Something runs here; the message names it and what to do."""


def main() -> int:
    """Clean; returns the exit status."""
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_held(ROOT, "an installation runs in this checkout: stop it, or wait until it is done"))
            for lock in (HOME / "lock", *HOME.glob("*/lock")):
                stack.enter_context(_held(lock, f"a system runs on {lock.parent}: stop it first (Ctrl-C, ./shop down)"))
            account.remove_bases(HOME)
            for path in MADE:
                _remove(path)
            for folder in COMPILED:
                for path in (ROOT / folder).rglob("__pycache__"):
                    _remove(path)
    except InUse as error:
        sys.stderr.write(f"  nothing was removed: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"  can't remove everything: {error.strerror}: {error.filename}\n")
        return 1
    return 0


@contextlib.contextmanager
def _held(path: Path, problem: str) -> Iterator[None]:
    """Hold the kernel's lock of a file or folder, if there is one; raises InUse when somebody else holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(problem) from None
        yield
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)


if __name__ == "__main__":
    sys.exit(main())
