"""The seams of the data plane: what its parts know of one another.

Gateway (Plane) ── Inbound (ClientSide), one per client connection ── Exchange, one per request ── Connection
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

from backstay.discovery import Instance, Registry
from backstay.gateway.attempts import Protection
from backstay.gateway.forwarding import Peer
from backstay.gateway.guard import Guard
from backstay.gateway.headers import RequestNames
from backstay.gateway.metrics import Metrics
from backstay.gateway.options import GatewayOptions
from backstay.gateway.problems import Refusal
from backstay.gateway.routes import Route, RouteTable
from backstay.http.connection import Address
from backstay.http.framing import RequestHead
from backstay.http.pool import Pool


class Outcome(NamedTuple):
    """The outcome of an exchange."""

    head: RequestHead
    peer: Peer
    route: Route | None
    user: str | None
    upstream: Address | None
    status: int
    seconds: float
    trace_id: str


class ClientSide(Protocol):
    """A client connection, as its exchanges see it."""

    peer: Peer
    writable: bool

    @property
    def gateway(self) -> "Plane":
        """The owner of the connection."""

    def write(self, data: bytes) -> None:
        """Send to the client."""

    def write_continue(self, exchange: Any) -> None:
        """Send `100 Continue`, once."""

    def expire_at(self, deadline: float) -> None:
        """Set the time at which the exchange's `expire` is called."""

    def limit_body(self, head: RequestHead, limit: int) -> None:
        """Take at most so much of the body that is arriving; raises FramingError."""

    def update_reading(self) -> None:
        """Something changed that decides whether more may be read from the client."""

    def keeps(self, exchange: Any, *, whole: bool = True) -> bool:
        """Return whether the connection can go on after an answer that is written now, or begins."""

    def answered(self, exchange: Any, *, keep: bool) -> None:
        """The answer is written to its end."""

    def abort(self) -> None:
        """End the connection at once."""


class Plane(Protocol):
    """The gateway, as connections and exchanges see it."""

    options: GatewayOptions
    routes: RouteTable
    registry: Registry
    guard: Guard
    metrics: Metrics
    pool: Pool
    request_names: Mapping[Route, RequestNames]
    protections: Mapping[Route, Protection]
    connect_timeout: float
    response_timeout: float

    @property
    def draining(self) -> bool:
        """True if the gateway stops."""

    @property
    def time(self) -> Callable[[], float]:
        """The loop's clock, in seconds."""

    def peer(self, address: str) -> Peer:
        """Return the state kept for a client's address."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that ends by itself."""

    def eject(self, instance: Instance) -> None:
        """The instance refused a connection."""

    def record(self, outcome: Outcome) -> None:
        """An exchange ended."""

    def refused(self, peer: Peer, refusal: Refusal) -> str:
        """Something that isn't a request was refused; gives its trace id."""
