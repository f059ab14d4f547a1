"""Fault points: named places in production code where a test or a fault run can inject a fault.

A point does nothing until it is armed, by the environment variable `FAULTS` or by lines of the file named in
`FAULTS_FILE` (read again whenever it changes). One entry is `name=action[@n][*k]`:

    orders.checkout.before-commit=kill         SIGKILL to this process, once, also across its restarts
    payments.provider.call=delay:2.5           wait 2.5 seconds
    payments.provider.call=error*3             raise Injected, three times
    payments.provider.call=fail:30             raise Injected in 30 percent of the hits
    inventory.reserve=hang@4                   never return from the 4th hit (until it is disarmed)

`@n` starts at the n-th hit in a process (and fires once, unless `*k` says more), `*k` fires k times in all.
What has fired is kept in `<FAULTS_FILE>.spent`, so a restarted process doesn't fire it again.
"""

import asyncio
import fcntl
import os
import random
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backstay.errors import BackstayError, ConfigError

_ENTRY = re.compile(
    r"(?P<name>[\w.-]+)=(?P<action>kill|delay|error|hang|fail)(:(?P<value>\d+(\.\d+)?))?(@(?P<start>\d+))?(\*(?P<times>\d+))?"
)
_NEEDS_VALUE = {"delay", "fail"}
_HANG_CHECK = 0.1  # seconds between two checks whether a hanging point was disarmed


class Injected(BackstayError):
    """An armed fault point raised this on purpose."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One armed entry.

    `value` is seconds for `delay` and percent for `fail`; `times` None means without limit.
    """

    text: str
    name: str
    action: str
    value: float
    start: int
    times: int | None

    @classmethod
    def parse(cls, text: str) -> "Fault":
        """Parse one entry; raises ConfigError that names the mistake."""
        match = _ENTRY.fullmatch(text)
        if match is None or (match["action"] in _NEEDS_VALUE) != (match["value"] is not None):
            raise ConfigError(
                f"FAULTS: {text!r} is not name=action[@n][*k];"
                " actions are kill, delay:SECONDS, error, hang and fail:PERCENT"
            )
        once = match["action"] == "kill" or match["start"] is not None
        times = int(match["times"]) if match["times"] else (1 if once else None)
        return cls(text, match["name"], match["action"], float(match["value"] or 0), int(match["start"] or 1), times)


def parse(text: str) -> tuple[Fault, ...]:
    """Return the entries of `text`, separated by commas or line ends; `#` starts a comment."""
    lines = (line.split("#", 1)[0] for line in text.splitlines())
    return tuple(Fault.parse(entry.strip()) for line in lines for entry in line.split(",") if entry.strip())


class Plan:
    """The armed fault points, and the number of uses left of each."""

    def __init__(self, text: str = "", *, file: Path | None = None) -> None:
        self._fixed = parse(text)
        self._file = file
        self._stamp: tuple[int, int, int] | None = None
        self._faults = self._fixed
        self._hits: dict[str, int] = {}
        self._fired: dict[str, int] = {}

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> "Plan | None":
        """Return the plan in `environ`, or None when nothing is armed there."""
        text, file = environ.get("FAULTS", ""), environ.get("FAULTS_FILE", "")
        return cls(text, file=Path(file) if file else None) if text or file else None

    def take(self, name: str) -> Fault | None:
        """Count a hit of `name`, and return the fault to inject now, if any."""
        self._reload()
        candidates = [fault for fault in self._faults if fault.name == name]
        if not candidates:
            return None
        hit = self._hits[name] = self._hits.get(name, 0) + 1
        return next((fault for fault in candidates if self._due(fault, hit)), None)

    def armed(self, fault: Fault) -> bool:
        """Return whether `fault` is still in the plan."""
        self._reload()
        return fault in self._faults

    def _due(self, fault: Fault, hit: int) -> bool:
        if hit < fault.start:
            return False
        if fault.action == "fail" and random.random() * 100 >= fault.value:  # noqa: S311
            return False
        return fault.times is None or self._spend(fault, fault.times)

    def _spend(self, fault: Fault, times: int) -> bool:
        if self._file is not None:
            return _spend_in_file(self._file.with_name(self._file.name + ".spent"), fault.text, times)
        fired = self._fired.get(fault.text, 0)
        self._fired[fault.text] = fired + 1
        return fired < times

    def _reload(self) -> None:
        if self._file is None:
            return
        try:
            status = os.stat(self._file)
        except FileNotFoundError:
            self._stamp, self._faults = None, self._fixed
            return
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._faults = self._fixed + parse(self._file.read_text())
            self._stamp = stamp
            self._hits.clear()


def _spend_in_file(path: Path, text: str, times: int) -> bool:
    """Use one of `times` firings, counted over all processes that share the file."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if file.read().splitlines().count(text) >= times:
            return False
        file.write(text + "\n")
        return True


_UNREAD = Plan()
_plan: Plan | None = _UNREAD


def install(plan: Plan | None) -> Plan | None:
    """Arm `plan` in this process (None disarms) and return the previous one."""
    global _plan
    before, _plan = _plan, plan
    return before


def _current() -> Plan | None:
    if _plan is _UNREAD:
        install(Plan.read(os.environ))
    return _plan


async def point(name: str) -> None:
    """Inject the fault `name` here if it is armed."""
    if _plan is None or (plan := _current()) is None or (fault := plan.take(name)) is None:
        return
    if fault.action == "delay":
        await asyncio.sleep(fault.value)
    elif fault.action == "hang":
        while plan.armed(fault):  # noqa: ASYNC110 - another process disarms it
            await asyncio.sleep(_HANG_CHECK)
    else:
        _break(fault)


def point_sync(name: str) -> None:
    """Inject the fault `name` here if it is armed, in code without an event loop."""
    if _plan is None or (plan := _current()) is None or (fault := plan.take(name)) is None:
        return
    if fault.action == "delay":
        time.sleep(fault.value)
    elif fault.action == "hang":
        while plan.armed(fault):
            time.sleep(_HANG_CHECK)
    else:
        _break(fault)


def _break(fault: Fault) -> None:
    if fault.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise Injected(f"fault point {fault.name} was armed with {fault.text!r}")


__all__ = ["Fault", "Injected", "Plan", "install", "parse", "point", "point_sync"]
