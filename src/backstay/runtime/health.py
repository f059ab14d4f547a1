"""Health of a process: live while it answers; ready while its own database and copies are there.

Readiness never depends on another service: one that is down would take all others out of the registry. What goes wrong
without keeping the process from its work, such as events that can't be published for a while, is reported as
`troubles`, with the reason.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

CHECK_TIMEOUT = 2.0
"""Seconds a check may take; longer counts as failed."""


@dataclass(frozen=True, slots=True)
class Check:
    """A condition without which the process can't do its work."""

    name: str
    find_missing: Callable[[], Awaitable[str | None]]
    """Return what is missing, in words, or None; an exception counts as missing."""
    once: bool = False
    """Once it has passed, it is not run again."""


class CheckResult(msgspec.Struct, omit_defaults=True):
    """Result of one check."""

    status: str
    missing: str | None = None


class Health(msgspec.Struct):
    """Body of the health routes."""

    status: str
    checks: dict[str, CheckResult] = {}
    troubles: dict[str, str] | UnsetType = UNSET
    """Part → why it can't do its work for the moment."""


class Readiness:
    """All checks of a process, and the parts whose troubles it reports."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self._checks = list(checks)
        self._passed: set[str] = set()
        self._watched: dict[str, Any] = {}

    def watch(self, part: Any) -> None:
        """Report this part's troubles: a relay's `problem`, the `reason` for which a consumer isn't healthy."""
        kind = type(part).__name__.lower()
        self._watched[f"{kind}-{getattr(part, 'name', None) or getattr(part, 'group', len(self._watched))}"] = part

    async def check(self) -> Health:
        """Run every check now, concurrently."""
        results = await asyncio.gather(*(self._result(check) for check in self._checks))
        checks = {check.name: result for check, result in zip(self._checks, results, strict=True)}
        ready = all(result.status == "UP" for result in results)
        troubles = {name: why for name, part in self._watched.items() if (why := _trouble(part))}
        return Health("UP" if ready else "DOWN", checks, troubles or UNSET)

    async def passed(self) -> bool:
        """Return whether every check passes now."""
        return (await self.check()).status == "UP"

    async def _result(self, check: Check) -> CheckResult:
        if check.name in self._passed:
            return CheckResult("UP")
        try:
            async with asyncio.timeout(CHECK_TIMEOUT):
                missing = await check.find_missing()
        except TimeoutError:
            missing = f"no answer within {CHECK_TIMEOUT:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is missing
            missing = f"{type(error).__name__}: {error}"
        if missing is not None:
            return CheckResult("DOWN", missing)
        if check.once:
            self._passed.add(check.name)
        return CheckResult("UP")


def _trouble(part: Any) -> str | None:
    if hasattr(part, "problem"):
        return str(part.problem) if part.problem else None
    reason = getattr(part.statistics(), "reason", None) if hasattr(part, "statistics") else None
    return str(reason) if reason else None


def checks_of(owned: Sequence[Any]) -> list[Check]:
    """Return the checks that owned databases and consumers bring with them."""
    found: list[Check] = []
    for thing in owned:
        if hasattr(thing, "ping") and hasattr(thing, "use_dsn"):
            found.append(Check(_named("database", thing, found), _ping(thing)))
        if hasattr(thing, "caught_up"):
            found.append(Check(_named("catch-up", thing, found), _catch_up(thing), once=True))
    return found


def _named(kind: str, thing: Any, others: Sequence[Check]) -> str:
    """Return the kind alone for the first of its kind, and with the part's name for others."""
    if all(other.name != kind for other in others):
        return kind
    return f"{kind}-{getattr(thing, 'name', None) or getattr(thing, 'group', len(others))}"


def _ping(database: Any) -> Callable[[], Awaitable[str | None]]:
    async def ping() -> str | None:
        await database.ping(timeout=1.0)
        return None

    return ping


def _catch_up(consumer: Any) -> Callable[[], Awaitable[str | None]]:
    async def caught_up() -> str | None:
        return None if await consumer.caught_up() else "the copy of what others publish is not complete yet"

    return caught_up


__all__ = ["CHECK_TIMEOUT", "Check", "CheckResult", "Health", "Readiness", "checks_of"]
