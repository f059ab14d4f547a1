"""Composition of the registry: Eureka's REST interface, health, metrics and a page on one port."""

from collections.abc import Mapping, Sequence

from backstay.discovery import Credentials, LeaseRegistry, RegistryServer
from backstay.errors import ConfigError
from backstay.telemetry import logs
from shop.discovery.config import DiscoverySettings


class Discovery:
    """The registry as a process."""

    def __init__(self, settings: DiscoverySettings) -> None:
        self.settings = settings
        self.server = RegistryServer(
            settings.host,
            settings.discovery_port,
            credentials=_credentials(settings),
            open=settings.open_registry,
            leases=LeaseRegistry(max_leases=settings.max_leases),
            eviction=settings.eviction_interval,
        )

    def missing(self, roles: Sequence[str] | None = None) -> list[str]:  # noqa: ARG002 - it has but one role
        """Return nothing: each setting has a default."""
        return []

    def run(self, roles: Sequence[str] | None = None) -> None:  # noqa: ARG002 - it has but one role
        """Serve until SIGTERM or SIGINT."""
        logs.configure("discovery", self.settings.log_format, self.settings.log_level)
        self.server.run()


def settings(environ: Mapping[str, str]) -> DiscoverySettings:
    """Return the settings that the environment asks for; raises `ConfigError`."""
    return DiscoverySettings.read(environ)


def build(settings: DiscoverySettings) -> Discovery:
    """Return the registry, ready to run."""
    return Discovery(settings)


def _credentials(settings: DiscoverySettings) -> Credentials | None:
    if settings.registry_credentials:
        return Credentials.read(settings.registry_credentials, private_reads=settings.registry_private_reads)
    if settings.registry_private_reads:
        raise ConfigError("REGISTRY_PRIVATE_READS needs REGISTRY_CREDENTIALS")
    return None
