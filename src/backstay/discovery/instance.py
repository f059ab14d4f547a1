"""One running copy of an application, as those who call it see it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from backstay.discovery.errors import Unreachable

UP = "UP"
DOWN = "DOWN"
STARTING = "STARTING"
OUT_OF_SERVICE = "OUT_OF_SERVICE"
UNKNOWN = "UNKNOWN"
STATUSES = frozenset({UP, DOWN, STARTING, OUT_OF_SERVICE, UNKNOWN})
EJECTION = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Instance:
    """An address of an application, and the status that the instance reports."""

    app: str
    """Lower case."""
    id: str
    host: str
    port: int
    status: str = UP
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)
    secure: bool = False
    """Whether `port` speaks TLS; then nothing is sent there, since TLS to instances isn't supported yet."""
    since: int = 0
    """Milliseconds since the epoch of its last change; the same address with another `since` was started anew."""

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{self.host}:{self.port}"

    @property
    def obstacle(self) -> str | None:
        """Why nothing may be sent there, whatever its status; None if it takes plain HTTP."""
        if self.secure:
            return f"{self.app} takes TLS only ({self.address}), and TLS to instances isn't supported"
        if not self.port:
            return f"{self.app} has no enabled port ({self.id})"
        return None

    def plain_address(self) -> tuple[str, int]:
        """Host and port to speak plain HTTP to; raises `Unreachable` if the instance doesn't take it."""
        if (obstacle := self.obstacle) is not None:
            raise Unreachable(self.app, obstacle)
        return self.host, self.port


class Registry(Protocol):
    """A directory of instances, as callers need it."""

    def choose(self, app: str) -> Instance:
        """Return the next instance that is up, in turn; raises `NoInstance`."""

    def instances(self, app: str) -> list[Instance]:
        """All known instances, in any state, in the order of their ids."""

    def eject(self, instance: Instance, seconds: float = EJECTION) -> None:
        """Leave the instance out of `choose` for a while: it just refused a connection."""
