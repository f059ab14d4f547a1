"""Ctrl-C and SIGTERM end a test run at once, with every process that its workers have started.

Workers are in the middle of tests that wait for brokers and databases; nobody who has asked a run to stop wants to see
these through. What failed until then is still reported.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
from types import FrameType

import psutil
import pytest

GRACE = 0.8  # seconds for the descendants to end by themselves
LAST = 1.5  # seconds after which the run ends without its report
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def pytest_configure(config: pytest.Config) -> None:
    """Install the handlers in the process that was started; let workers end with it."""
    if hasattr(config, "workerinput"):
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        return
    signal.signal(signal.SIGTERM, _stop)
    if config.getoption("numprocesses", None):
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, _frame: FrameType | None) -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    last = threading.Timer(LAST, os._exit, [128 + number])
    last.daemon = True
    last.start()
    end_descendants()
    raise KeyboardInterrupt


def end_descendants() -> None:
    """End what this process has started, directly or not, whatever session it leads."""
    found = psutil.Process().children(recursive=True)
    for process in found:
        _send(process, signal.SIGQUIT if _is_postgres(process) else signal.SIGTERM)
    _, alive = psutil.wait_procs(found, GRACE)
    for process in {*alive, *psutil.Process().children(recursive=True)}:
        _send(process, signal.SIGKILL)


def _is_postgres(process: psutil.Process) -> bool:
    """Killed otherwise it would leave its shared memory behind."""
    try:
        return process.name() == "postgres"
    except psutil.Error:
        return False


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.Error):
        process.send_signal(number)
