"""One running copy of an application, as those who call it see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

UP = "UP"
DOWN = "DOWN"
STARTING = "STARTING"
OUT_OF_SERVICE = "OUT_OF_SERVICE"
UNKNOWN = "UNKNOWN"
STATUSES = frozenset({UP, DOWN, STARTING, OUT_OF_SERVICE, UNKNOWN})
EJECTION = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Instance:
    """Where to send, and in which state it says it is."""

    app: str
    """Lower case."""
    id: str
    host: str
    port: int
    status: str = UP
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    secure: bool = False
    """Whether `port` speaks TLS."""
    since: int = 0
    """Milliseconds since the epoch of its last change; the same address with another `since` was started anew."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"


class Registry(Protocol):
    """What callers need to know of the registry."""

    def choose(self, app: str) -> Instance:
        """The next instance that is up, in turn; raises `NoInstance`."""

    def instances(self, app: str) -> list[Instance]:
        """All known instances, in any state, in the order of their ids."""

    def eject(self, instance: Instance, seconds: float = EJECTION) -> None:
        """Leave the instance out of `choose` for a while: it just refused a connection."""
