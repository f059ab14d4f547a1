"""The entry of a process in the registry, kept true to its readiness.

STARTING until the checks have passed once, UP from then on, DOWN while they fail. Leaving takes the entry away first,
and then waits `drain_delay` seconds: callers that haven't noticed yet are served meanwhile.
"""

import asyncio
from collections.abc import Mapping

from backstay.clock import SYSTEM, Clock
from backstay.discovery import EurekaClient
from backstay.runtime.composition import Composition
from backstay.runtime.health import Readiness
from backstay.runtime.settings import RegistrationSettings
from backstay.telemetry.logs import get_logger

READY_INTERVAL = 0.25
"""Seconds between two rounds of the checks while the process isn't ready."""
FAILED_ROUNDS = 4
"""Rounds in a row that must fail before a process that was ready is reported DOWN: a busy one is not taken out."""
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104 - recognised, not bound

log = get_logger()


class Registration:
    """Reports `readiness` to the registry with every heartbeat on which it has changed."""

    def __init__(
        self, eureka: EurekaClient, readiness: Readiness, settings: RegistrationSettings, *, clock: Clock = SYSTEM
    ) -> None:
        self._eureka = eureka
        self._readiness = readiness
        self._settings = settings
        self._clock = clock
        self._reported_up = False

    async def enter(
        self, parts: Composition, name: str, host: str, port: int, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Announce the process, which listens on `host:port`, and leave with `parts`."""
        advertised = self._settings.advertised_host or (None if host in ANY_ADDRESS else host)
        parts.on_stop("registry entry", self._leave)
        ready = await self._readiness.passed()
        status = "UP" if ready else "STARTING"
        self._eureka.announce(name, port, host=advertised, status=status, metadata=metadata)
        self._reported_up = ready
        parts.background("readiness", self._report)

    async def _report(self) -> None:
        while True:
            up = self._reported_up
            await self._clock.sleep(self._settings.heartbeat_interval if up else READY_INTERVAL)
            if await self._passes(rounds=FAILED_ROUNDS if up else 1) == up:
                continue
            await self._eureka.set_status("DOWN" if up else "UP")
            self._reported_up = not up
            log.warning("process.readiness_lost") if up else log.info("process.readiness_reached")

    async def _passes(self, rounds: int) -> bool:
        """Return whether the checks pass in one of that many rounds."""
        for done in range(rounds):
            if done:
                await self._clock.sleep(READY_INTERVAL)
            if await self._readiness.passed():
                return True
        return False

    async def _leave(self) -> None:
        await self._eureka.leave()
        await asyncio.sleep(self._settings.drain_delay)


__all__ = ["FAILED_ROUNDS", "READY_INTERVAL", "Registration"]
