"""The types of guarded functions, as mypy and pyright see them."""

import subprocess
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).with_name("policies.py")
ROOT = Path(__file__).parents[2]


def check(*argv: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
def test_mypy(tmp_path: Path) -> None:
    """Signatures and results are kept, and each wrong call is an error (an unneeded ignore would be one, too)."""
    check("mypy", "--strict", "--cache-dir", str(tmp_path), "--follow-imports=silent", str(FILE))


@pytest.mark.timeout(300)
def test_pyright() -> None:
    """The same by the other checker, in its own words."""
    check("basedpyright", str(FILE))
