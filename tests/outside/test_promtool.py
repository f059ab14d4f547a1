"""Prometheus' own tool reads every page of metrics. `PROMTOOL` names it where it isn't on the path."""

import os
import shutil
import subprocess

import pytest
from tests.docs.metric_pages import pages

import backstay.resilience as r
from backstay.resilience import meters

MICROMETERS = ("resilience4j_bulkhead_active_thread_count", "resilience4j_bulkhead_available_thread_count")
"""Names that are Micrometer's, and end as the tool doesn't like it."""

pytestmark = pytest.mark.outside


def check(page: str) -> tuple[int, str]:
    """Return the exit code and the complaints of `promtool check metrics`."""
    tool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool isn't there: install Prometheus, or name it with PROMTOOL=/path/to/promtool")
    done = subprocess.run(
        [tool, "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=60
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["service", "gateway", "registry"])
def test_promtool_accepts(name: str) -> None:
    """No parse error, no complaint about names, types or help."""
    assert check(pages()[name]) == (0, "")


def test_what_promtool_says_of_thread_pools() -> None:
    """The names of Resilience4j's thread pools are kept; nothing else of them is found fault with."""
    _, complaints = check(meters.exposition([r.ThreadPoolBulkhead(2)]))

    assert {line.split()[0] for line in complaints.splitlines() if line} == set(MICROMETERS)


def test_the_tool_would_complain() -> None:
    """The same check finds a counter without its suffix."""
    assert check("# TYPE a counter\na 1\n")[0] != 0
