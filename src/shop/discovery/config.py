"""Settings of the registry."""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from backstay.runtime.settings import NO_SECRET, Port, Seconds, Secret, Settings


@dataclass(frozen=True, kw_only=True)
class DiscoverySettings(Settings):
    """What the registry can be told from outside. Leases are as long as each client asks for."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    discovery_port: Port = 8761
    """Port to listen on; 0 takes a free one."""
    registry_credentials: Secret = NO_SECRET
    """Who may register: a JSON array of `{"user": …, "passwords": [one or two], "apps": [names]}`, optional `vips`."""
    registry_private_reads: bool = False
    """Reading needs a credential, too."""
    open_registry: bool = False
    """Everybody who reaches the port may register; without it and without credentials only a loopback address works."""
    eviction_interval: Seconds = 0.5
    """How often ended leases are removed."""
    max_leases: Annotated[int, Meta(ge=1)] = 20_000
    """Registrations beyond this are refused with 503."""
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
