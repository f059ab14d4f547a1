"""Deadlines that fit the machine, and reports that fit a screen.

The machine is measured once at the start of a run: how long a fixed piece of work takes on the wall beside the time it
took on the reference machine. Deadlines of waits and the limit of each test grow by that factor, asserted bounds never.
"""

import os
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from backstay.testing.waiting import SCALE_VARIABLE, scaled

WORK = 60_000  # rounds of the loop below
REFERENCE = 0.0025  # seconds for them on the reference machine, quiet
SAMPLES = 60
HEADROOM = 2.0  # a run starts processes of its own
LARGEST = 12.0
SECTION_LINES = 40  # of a captured section that a report shows


def pytest_configure(config: pytest.Config) -> None:
    """Measure once (the workers of a run inherit what its first process found); let Hypothesis judge no times."""
    if SCALE_VARIABLE not in os.environ:
        os.environ[SCALE_VARIABLE] = f"{wait_scale():.1f}"
    # Both would fail a test because the machine is slow: the time of one example, and of making examples.
    settings.register_profile("machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("machine")


def wait_scale() -> float:
    """Return the factor for deadlines on this machine in its present load."""
    taken = sorted(_round() for _ in range(SAMPLES))
    slowness = sum(taken) / len(taken) / REFERENCE
    return min(LARGEST, max(1.0, slowness) * HEADROOM)


def _round() -> float:
    began = time.perf_counter()
    total = 0
    for n in range(WORK):
        total += n
    return time.perf_counter() - began


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test its limit on this machine."""
    default = float(config.getini("timeout"))
    for item in items:
        marker = item.get_closest_marker("timeout")
        seconds = float(marker.args[0]) if marker and marker.args else default
        item.add_marker(pytest.mark.timeout(scaled(seconds)), append=False)


def pytest_report_header() -> str:
    return f"deadlines of waits: × {os.environ[SCALE_VARIABLE]} on this machine"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Shorten what was captured: a broker that is killed logs thousands of lines, and the last few tell."""
    report = yield
    report.sections = [(title, shortened(text)) for title, text in report.sections]
    return report


def shortened(text: str) -> str:
    """Return the last lines of a captured section, with a count of those left out."""
    lines = text.splitlines()
    left_out = len(lines) - SECTION_LINES
    return text if left_out <= 0 else f"… {left_out} lines left out …\n" + "\n".join(lines[-SECTION_LINES:])
