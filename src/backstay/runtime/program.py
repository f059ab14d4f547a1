"""A program: read its settings, configure its logs, run it until a signal, exit with a status that says why."""

import re
import sys
from collections.abc import Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

from backstay.errors import BackstayError, ConfigError
from backstay.runtime.gc_tuning import freeze_gc
from backstay.runtime.settings import LogSettings, Settings, SettingsError
from backstay.runtime.stopping import StopSignal
from backstay.telemetry.logs import configure, get_logger

FAILED = 1
"""Exit status of a program that could not start or go on."""
MISCONFIGURED = 2
"""Exit status where a setting has to change first."""

log = get_logger()


class RunningProcess(Protocol):
    """A process between its start and its ordered stop."""

    def stop_draining(self) -> None:
        """Cut the requests in flight instead of waiting for them."""

    async def ended(self) -> None:
        """Return when the process has ended by itself, with its error if it failed; usually never."""

    def described(self) -> dict[str, Any]:
        """Return where it is reached and what it runs, for the log."""


class Process(Protocol):
    """A program whose settings are known; `Service` and the gateway's, registry's and relay's processes are."""

    def missing(self, roles: Collection[str] | None = None) -> Sequence[str]:
        """Return what its parts need and the settings lack, a sentence each."""

    def run(self, roles: Collection[str] | None = None) -> None:
        """Run until a signal; exit with a status if it can't."""


S = TypeVar("S", bound=Settings)
P = TypeVar("P", bound=Process)


def load(read: Callable[[], S], build: Callable[[S], P], *, roles: Collection[str] | None = None) -> P:
    """Return the process built from the settings.

    Raises:
        ConfigError: lists every mistake at once: what is wrong, and what the parts need that is not set.
    """
    try:
        settings = read()
    except SettingsError as error:
        if error.usable is None:
            raise
        named = {_variable(problem) for problem in error.problems}
        more = _missing(error.usable, build, roles)
        raise ConfigError([*error.problems, *(each for each in more if _variable(each) not in named)]) from None
    process = build(settings)
    if problems := process.missing(roles):
        raise ConfigError(problems)
    return process


def _missing(settings: Any, build: Callable[[Any], Process], roles: Collection[str] | None) -> Sequence[str]:
    try:
        return build(settings).missing(roles)
    except ConfigError as error:
        return error.problems
    except Exception:  # noqa: BLE001 - settings that contradict each other need not build; their problems are known
        return ()


def _variable(problem: str) -> str:
    """Return the variable that a problem begins with."""
    found = re.match(r"\w+", problem)
    return found[0] if found else problem


def run(name: str, read: Callable[[], LogSettings], serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Read the settings and `execute`; exit with a message and a status if it can't."""
    try:
        execute(name, read(), serve)
    except (BackstayError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the logs may not be read by anybody
        sys.exit(MISCONFIGURED if isinstance(error, ConfigError) else FAILED)


def execute(name: str, settings: LogSettings, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run `serve` on uvloop, with the logs of the process `name` configured."""
    import uvloop

    configure(name, settings.log_format, settings.log_level)
    uvloop.run(serve())


async def serve(kind: str, running: AbstractAsyncContextManager[RunningProcess]) -> None:
    """Run until SIGTERM or SIGINT, then stop in order; a second signal cuts what is in flight.

    `kind` begins the log events: `service.started`.

    Raises:
        Exception: the process could not start, or ended by itself.
    """
    with StopSignal() as stop:
        async with stop.cancels_start(), running as it:
            stop.started(it.stop_draining)
            freeze_gc()
            log.info(f"{kind}.started", **it.described())
            await stop.wait_or(it.ended())
            log.info(f"{kind}.stopping", signal=stop.name)
    log.info(f"{kind}.stopped")


__all__ = ["FAILED", "MISCONFIGURED", "Process", "RunningProcess", "execute", "load", "run", "serve"]
