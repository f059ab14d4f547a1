"""A small run of the chaos: the long one is `make chaos-outbox`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from backstay.dev import apache

ROOT = Path(__file__).parents[2]
WHAT = "--seed 11 --events 4000 --kills 3 --brokers 1 --rate 1000 --interval 1.5"


@pytest.mark.apache
@pytest.mark.kafka
@pytest.mark.timeout(300)
@pytest.mark.xdist_group("chaos")
def test_nothing_is_lost_doubled_or_reordered_while_processes_die() -> None:
    """Writers, relays and consumers are killed, stopped and cut off; the histories add up."""
    if not apache.is_available():
        pytest.skip("needs Java and Maven")
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos.run", *WHAT.split()],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "every invariant holds" in done.stdout
