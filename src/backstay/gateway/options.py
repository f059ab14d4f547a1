"""Options of a gateway besides its routes. Durations are seconds, sizes bytes."""

from dataclasses import dataclass, field

from backstay.http.framing import Limits

IDENTITY_HEADERS = (
    "x-user*",
    "x-customer*",
    "x-admin*",
    "x-principal*",
    "x-auth*",
    "x-internal*",
    "x-session*",
    "x-role*",
    "x-scope*",
    "x-claim*",
    "x-jwt*",
    "x-consumer-*",
    "x-credential*",
    "x-remote-*",
    "x-client-cert*",
    "x-ssl-client-*",
    "ssl-client-*",
    "remote-user",
)
"""Headers in which services elsewhere keep an identity; from outside they are dropped. `*` stands for any ending."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayOptions:
    """The data plane's limits and time-outs."""

    limits: Limits = field(default_factory=Limits)
    """Of a request; a route's RequestSize goes before its `body`."""
    identity_headers: tuple[str, ...] = IDENTITY_HEADERS
    max_clients: int = 10_000
    """Client connections at a time; more are closed immediately."""
    max_per_address: int = 500
    """Of them from one address (an IPv6 /64); trusted proxies and loopback are exempt."""
    address_rate: float = 200.0
    """Requests a second that one client address may make for long, whatever its tokens; 0: no limit. The address is the
    one after `trusted-proxies`; trusted proxies themselves and loopback are exempt."""
    address_burst: float = 1000.0
    """Requests that it may make at once."""
    head_timeout: float = 10.0
    """From the first byte of a request to the end of its head."""
    keep_alive: float = 60.0
    """How long an idle client connection stays open."""
    body_timeout: float = 15.0
    """Over which the arrival of a request body is measured: at least 240 bytes for each second of it."""
    connect_timeout: float = 2.0
    """For a connection to an upstream."""
    response_timeout: float = 10.0
    """From the whole request to the first byte of the answer; the longest deadline that is passed on."""
    deadline_floor: float = 0.05
    """The shortest `x-request-deadline-ms` that is tried; a shorter one is answered 504 and nothing is sent."""
    deadline_ceiling: float = 300.0
    """The longest that is honoured, also on a route without a response time-out; a longer one is lowered to it."""
    idle_timeout: float = 30.0
    """How long a service's answer may stall; and over which the client's reading of it is measured, at least 240 bytes
    for each second of it."""
    total_timeout: float = 300.0
    """For a whole exchange."""
    drain_timeout: float = 15.0
    """For exchanges in flight when the gateway stops."""
    eject_seconds: float = 10.0
    """How long an instance that refused a connection is left out."""
    instance_wait: float = 1.0
    """How long a request waits for an instance while there is none, as when the only one is started again."""
    upstream_idle: float = 4.0
    """How long an idle upstream connection is kept; shorter than the upstreams' own keep-alive."""
    upstream_connections: int = 512
    """The most connections to one instance."""
    retry_after: int = 1
    """Seconds in the `Retry-After` of a 503."""
