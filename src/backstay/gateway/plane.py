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
    """How an exchange ended."""

    head: RequestHead
    peer: Peer
    route: Route | None
    user: str | None
    upstream: Address | None
    status: int
    seconds: float
    trace_id: str


class ClientSide(Protocol):
    """A client connection, as its exchanges and the gateway see it."""

    peer: Peer
    writable: bool
    deadline: float

    @property
    def gateway(self) -> "Plane":
        """Whose connection it is."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""

    def write(self, data: bytes) -> None:
        """Send to the client."""

    def limit_body(self, head: RequestHead, limit: int) -> None:
        """Take at most so much of the body that is arriving; raises FramingError."""

    def update_reading(self) -> None:
        """Something changed that decides whether more may be read from the client."""

    def keeps(self, head: RequestHead) -> bool:
        """Whether the connection can go on after this request."""

    def discards(self, head: RequestHead) -> bool:
        """Whether the rest of an unwanted body is little enough to be read away."""

    def exchange_done(self, exchange: object, *, keep: bool, body_pending: bool) -> None:
        """The answer is written; `body_pending`: the request isn't read to its end and won't be."""

    def expire(self) -> None:
        """The deadline has passed."""

    def drain(self) -> None:
        """Close as soon as nothing is in flight."""

    def cut(self) -> None:
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
    draining: bool

    @property
    def time(self) -> Callable[[], float]:
        """The loop's clock, in seconds."""

    def peer(self, address: str) -> Peer:
        """What is known of a client's address."""

    def opened(self, client: ClientSide) -> bool:
        """A client connected; False if there are too many."""

    def closed(self, client: ClientSide) -> None:
        """A client connection is gone."""

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that ends by itself."""

    def eject(self, instance: Instance) -> None:
        """The instance refused a connection."""

    def record(self, outcome: Outcome) -> None:
        """An exchange ended."""

    def refused(self, peer: Peer, refusal: Refusal) -> str:
        """Something that isn't a request was refused; gives its trace id."""
