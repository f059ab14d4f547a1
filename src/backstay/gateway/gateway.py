"""The gateway: owner of the listening socket, the client connections and the pool of upstream connections."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from backstay.auth import TokenVerifier
from backstay.discovery import Instance, Registry
from backstay.gateway.accesslog import AccessLog
from backstay.gateway.admission import trace_of
from backstay.gateway.attempts import Protection, protections
from backstay.gateway.forwarding import Peer
from backstay.gateway.guard import Guard
from backstay.gateway.headers import RequestNames
from backstay.gateway.inbound import Inbound
from backstay.gateway.limits import TokenBuckets
from backstay.gateway.metrics import NO_ROUTE, Metrics
from backstay.gateway.options import GatewayOptions
from backstay.gateway.plane import Outcome
from backstay.gateway.problems import Refusal
from backstay.gateway.revocations import DenyList
from backstay.gateway.routes import Route, RouteTable
from backstay.http.addresses import is_loopback
from backstay.http.framing import RequestHead
from backstay.http.inbound import InboundConnection
from backstay.http.listener import Bounds, Listener
from backstay.http.phases import Timeouts
from backstay.http.pool import Pool, PoolStatistics
from backstay.metrics import Count
from backstay.resilience import Registry as Policies


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """A snapshot of the gateway's state and counts."""

    clients: int
    in_flight: int
    log_lines_dropped: Count
    """Lines of the access log that were lost because its reader stalled."""
    turned_away: Count
    """Connections refused because `max_clients` were open."""
    turned_away_of_address: Count
    """Connections refused because `max_per_address` of their address were open."""
    requests: Count
    replays: Count
    ejections: Count
    upstream: PoolStatistics


class Gateway:
    """Serves a route table on `host:port`; port 0 takes a free one, which `port` holds after entering.

    Leaving closes in order: no new connections; idle client connections close; exchanges in flight finish (at most
    `drain_timeout` seconds); what is left is cut; upstream connections close. Leaving twice is harmless.
    """

    def __init__(
        self,
        routes: RouteTable,
        registry: Registry,
        *,
        verifier: TokenVerifier | None = None,
        denied: DenyList | None = None,
        policies: Policies | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        options: GatewayOptions | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        """`policies`: what `CircuitBreaker` filters name. Raises ConfigError for one that a route can't heed."""
        self.options = options = options or GatewayOptions()
        self.routes = routes
        self.registry = registry
        self.guard = Guard(
            verifier,
            denied if denied is not None else DenyList(),
            retry_after=options.retry_after,
            addresses=TokenBuckets(options.address_rate, options.address_burst) if options.address_rate else None,
        )
        self.host = host
        self.port = port
        self.metrics = Metrics()
        self.pool = Pool(idle=options.upstream_idle, max_per_address=options.upstream_connections)
        self.connect_timeout = _timeout(routes.connect_timeout, options.connect_timeout)
        self.response_timeout = _timeout(routes.response_timeout, options.response_timeout)
        self.request_names: Mapping[Route, RequestNames] = {
            route: RequestNames(options.identity_headers, route.actions.request.drop) for route in routes.routes
        }
        self.policies = Policies() if policies is None else policies
        self.protections: Mapping[Route, Protection] = protections(
            routes.routes, self.policies, {route: self._response_timeout(route) for route in routes.routes}
        )
        self.time: Callable[[], float] = time.monotonic  # finer than uvloop's, on the same clock
        self._log = access_log
        self._trusted: re.Pattern[str] | None = routes.trusted_proxies
        timeouts = Timeouts(
            head=options.head_timeout, idle=options.keep_alive, body=options.body_timeout, stall=options.idle_timeout
        )
        self.listener = Listener(
            lambda: Inbound(self, self.listener),
            limits=options.limits,
            timeouts=timeouts,
            bounds=Bounds(total=options.max_clients, per_address=options.max_per_address, exempt=self._is_exempt),
        )
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Gateway({self.host}:{self.port}, routes={[route.id for route in self.routes.routes]})"

    async def __aenter__(self) -> Self:
        self.port = await self.listener.listen(self.host, self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.listener.stop():
            return
        await self.listener.finished(self.options.drain_timeout)
        await self.listener.abort()
        self.pool.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._log is not None:
            self._log.close()

    def stop_draining(self) -> None:
        """Cut the exchanges in flight instead of waiting for them."""
        self.listener.stop_draining()
        for client in list(self._clients):
            client.abort()

    @property
    def draining(self) -> bool:
        """Whether the gateway is stopping."""
        return self.listener.draining

    @property
    def _clients(self) -> set[InboundConnection]:
        return self.listener.connections

    def statistics(self) -> GatewayStatistics:
        """Return the present state and the counts since the start."""
        requests = sum(sum(route.statuses.values()) for route in self.metrics.routes.values())
        clients = self.listener.statistics()
        return GatewayStatistics(
            clients=clients.connections,
            in_flight=clients.busy,
            log_lines_dropped=self._log.dropped if self._log is not None else 0,
            turned_away=clients.over_total,
            turned_away_of_address=clients.over_address,
            requests=requests,
            replays=self.metrics.replays,
            ejections=self.metrics.ejections,
            upstream=self.pool.statistics(),
        )

    # -- for the data plane
    def peer(self, address: str) -> Peer:
        """Return the state kept for a client's address."""
        return Peer(address, self.port, self._trusted)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run work that ends by itself; the gateway awaits it when it stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def eject(self, instance: Instance) -> None:
        """Leave out an instance that refused a connection, for `eject_seconds`."""
        self.metrics.ejections += 1
        self.registry.eject(instance, self.options.eject_seconds)

    def record(self, outcome: Outcome) -> None:
        """Record an exchange that ended."""
        route = outcome.route.id if outcome.route is not None else NO_ROUTE
        self.metrics.route(route).count(outcome.status, outcome.seconds)
        if self._log is not None and not _is_quiet(outcome):
            self._log.write(outcome)

    def refused(self, peer: Peer, refusal: Refusal) -> str:
        """Record the refusal of input that is no request; return its trace id."""
        nothing = RequestHead(b"-", b"-", "1.1", [], {})
        trace_id, _ = trace_of(nothing)
        self.record(Outcome(nothing, peer, None, None, None, refusal.status, 0.0, trace_id))
        return trace_id

    def _response_timeout(self, route: Route) -> float:
        return self.response_timeout if route.response_timeout is None else route.response_timeout

    def _is_exempt(self, address: str) -> bool:
        """Return whether many clients share the address: a trusted proxy, or this machine."""
        return is_loopback(address) or (self._trusted is not None and self._trusted.fullmatch(address) is not None)


def _is_quiet(outcome: Outcome) -> bool:
    """Return whether the request is a health check that succeeded: those are not logged."""
    return outcome.route is None and outcome.status == 200


def _timeout(configured: float | None, default: float) -> float:
    """Return the time-out of the file, or the default; a negative one in the file means none."""
    if configured is None:
        return default
    return configured if configured >= 0 else float("inf")
