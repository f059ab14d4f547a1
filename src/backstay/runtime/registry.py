"""The registry as a process: Eureka's REST interface, health, metrics and a page on one port."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from backstay.discovery import Credentials, LeaseRegistry, RegistryServer
from backstay.discovery.server import EVICTION, PORT
from backstay.errors import ConfigError
from backstay.runtime import program
from backstay.runtime.composition import Composition
from backstay.runtime.listening import listening
from backstay.runtime.settings import NO_SECRET, LogSettings, Port, Seconds, Secret
from backstay.telemetry.access import access_log


@dataclass(frozen=True, kw_only=True)
class RegistrySettings(LogSettings):
    """Settings of a registry. Leases are as long as each client asks for."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    discovery_port: Port = PORT
    """Port to listen on; 0 takes a free one."""
    registry_credentials: Secret = NO_SECRET
    """Who may register: a JSON array of `{"user": …, "passwords": [one or two], "apps": [names]}`, optional `vips`."""
    registry_private_reads: bool = False
    """Reading needs a credential, too."""
    open_registry: bool = False
    """Everybody who reaches the port may register; without it and without credentials only a loopback address works."""
    eviction_interval: Seconds = EVICTION
    """How often ended leases are removed."""
    max_leases: Annotated[int, Meta(ge=1)] = 20_000
    """Registrations beyond this are refused with 503."""
    access_log: bool = False
    """Write a line for each request, each heartbeat among them, to standard output."""

    def problems(self) -> list[str]:
        """Contradictions in who may register besides the base's own."""
        found = super().problems()
        if self.registry_private_reads and not self.registry_credentials:
            found.append("REGISTRY_CREDENTIALS is not set: REGISTRY_PRIVATE_READS requires a credential of readers")
        try:
            self.credentials()
        except ConfigError as error:
            found.extend(f"REGISTRY_CREDENTIALS: {problem}" for problem in error.problems)
        return found

    def credentials(self) -> Credentials | None:
        """Return who may register; None without any. Raises ConfigError."""
        if not self.registry_credentials:
            return None
        return Credentials.read(self.registry_credentials, private_reads=self.registry_private_reads)


@dataclass(frozen=True, slots=True)
class RunningRegistry:
    """A registry between its start and its ordered stop."""

    server: RegistryServer

    def stop_draining(self) -> None:
        """Do nothing: requests of a registry take no time."""

    async def ended(self) -> None:
        """Never return: it ends by a signal."""
        await asyncio.Event().wait()

    def described(self) -> dict[str, Any]:
        """Return where it is reached, for the log."""
        return {"url": f"http://{self.server.host}:{self.server.port}/eureka"}


class RegistryProcess:
    """Runs a registry until a signal. Raises ConfigError where everybody could register without being meant to."""

    def __init__(self, settings: RegistrySettings, *, name: str = "discovery") -> None:
        self.settings = settings
        self.name = name
        lines = access_log(name, settings.log_format) if settings.access_log else None
        self._server = RegistryServer(
            settings.host,
            settings.discovery_port,
            credentials=settings.credentials(),
            open=settings.open_registry,
            leases=LeaseRegistry(max_leases=settings.max_leases),
            eviction=settings.eviction_interval,
            access_log=lines,
        )

    def missing(self, roles: Collection[str] | None = None) -> list[str]:  # noqa: ARG002 - it has but one role
        """Return nothing: each setting has a default."""
        return []

    def run(self, roles: Collection[str] | None = None) -> None:  # noqa: ARG002 - it has but one role
        """The whole program; exits with a message if it can't start."""
        program.run(self.name, lambda: self.settings, self.serve)

    def execute(self) -> None:
        """Run as a part of another program, such as a command line: errors are raised."""
        program.execute(self.name, self.settings, self.serve)

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        await program.serve("discovery", self.running())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RunningRegistry]:
        """The registry between its start and its ordered stop."""
        async with Composition() as parts:
            with listening(self.settings.host, self.settings.discovery_port, port_name="DISCOVERY_PORT"):
                server = await parts.enter("registry", self._server)
            yield RunningRegistry(server)


__all__ = ["RegistryProcess", "RegistrySettings", "RunningRegistry"]
