"""Jobs: coroutines run at an interval. An error is logged and counted, and never ends the process."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from backstay.clock import SYSTEM, Clock
from backstay.metrics import Count
from backstay.telemetry.logs import get_logger
from backstay.telemetry.trace import TraceContext, use

JITTER = 0.2
"""Share of the interval by which each wait is made longer or shorter, so that instances don't run in step."""
TIMEOUT = 300.0
"""Seconds a single run may take."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class JobStatistics:
    """Counts of a job's runs."""

    runs: Count
    failures: Count
    last_error: str | None
    """Error of the latest run; None if it succeeded."""


class Job:
    """A coroutine function, called every `seconds` while the process runs."""

    def __init__(
        self,
        seconds: float,
        function: Callable[[], Awaitable[object]],
        *,
        name: str | None = None,
        timeout: float = TIMEOUT,
        clock: Clock = SYSTEM,
    ) -> None:
        if seconds <= 0:
            raise ValueError(f"a job's interval must be more than 0 seconds, not {seconds}")
        self.seconds = seconds
        self.name = name or getattr(function, "__name__", "job").strip("_").replace("_", "-")
        self._function = function
        self._timeout = timeout
        self._clock = clock
        self._runs = 0
        self._failures = 0
        self._last_error: str | None = None

    def __repr__(self) -> str:
        return f"Job({self.name!r}, every {self.seconds:g} s)"

    def statistics(self) -> JobStatistics:
        """Return the counts so far."""
        return JobStatistics(self._runs, self._failures, self._last_error)

    async def run_once(self) -> None:
        """Run once, in a trace of its own; an error is logged and counted."""
        self._runs += 1
        try:
            with use(TraceContext.new()):
                async with asyncio.timeout(self._timeout):
                    await self._function()
        except Exception as error:
            self._failures += 1
            self._last_error = f"{type(error).__name__}: {error}"
            log.warning("job.failed", job=self.name, error=self._last_error, exc_info=not _is_expected(error))
        else:
            self._last_error = None

    async def run(self) -> None:
        """Run repeatedly until cancelled; the first time after one jittered interval."""
        while True:
            await self._clock.sleep(self.seconds * random.uniform(1 - JITTER, 1 + JITTER))  # noqa: S311
            await self.run_once()


def every(
    seconds: float,
    function: Callable[[], Awaitable[object]],
    *,
    name: str | None = None,
    timeout: float = TIMEOUT,
    clock: Clock = SYSTEM,
) -> Job:
    """Return a job that calls `function` every `seconds` (jittered); a run takes at most `timeout` seconds."""
    return Job(seconds, function, name=name, timeout=timeout, clock=clock)


def _is_expected(error: Exception) -> bool:
    """Return whether the infrastructure is unavailable: a stack trace would say nothing more."""
    return isinstance(error, (ConnectionError, TimeoutError))


__all__ = ["JITTER", "TIMEOUT", "Job", "JobStatistics", "every"]
