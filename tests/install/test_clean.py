"""`make clean`: everything that was made goes, nothing that runs is harmed."""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = (
    ".venv/bin",
    ".venv.new",
    ".backstay/data/apache/postgres",
    ".backstay/replay",
    ".ruff_cache",
    "src/__pycache__",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with what an installation, a system, a replay and a check leave."""
    root = tmp_path / 'it\'s a "checkout"'
    for name in ("clean.py", "install.py"):
        (root / ".ci").mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / ".ci" / name, root / ".ci")
    shutil.copytree(ROOT / "src" / "backstay" / "dev", root / "src" / "backstay" / "dev")
    shutil.copy(ROOT / "src" / "backstay" / "__init__.py", root / "src" / "backstay")
    for folder in MADE:
        (root / folder).mkdir(parents=True)
    return root


def clean(root: Path) -> "subprocess.CompletedProcess[str]":
    """Run it with an interpreter that has the standard library alone, as one without `.venv` has."""
    argv = [sys.executable, "-S", str(root / ".ci" / "clean.py")]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


@contextmanager
def held(path: Path) -> Iterator[None]:
    """The lock of a file or folder, as its owner holds it."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def test_all_that_was_made_goes(checkout: Path) -> None:
    """Without a usable environment, and a second time with nothing there."""
    for _ in range(2):
        done = clean(checkout)

        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert sorted(path.name for path in checkout.iterdir()) == [".ci", "src"]
        assert not list(checkout.rglob("__pycache__"))


@pytest.mark.parametrize("lock", ["", ".backstay/lock", ".backstay/replay/lock"])
def test_what_runs_is_left_alone(checkout: Path, lock: str) -> None:
    """An installation, a system, a replay: one sentence with what to do, status 2, and nothing was removed."""
    with held(checkout / lock):
        done = clean(checkout)

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("  nothing was removed: a")
    assert all((checkout / folder).is_dir() for folder in MADE)
