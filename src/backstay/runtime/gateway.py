"""The gateway as a process.

Start: connections → registry list → the issuer's keys → revocations → public port → management port → registry entry.
Stop: leave the registry → accept nothing new, finish requests → the rest in reverse.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from backstay import __version__
from backstay import resilience as r
from backstay.auth import TokenVerifier
from backstay.discovery import EurekaClient, Registry, StaticRegistry
from backstay.errors import ConfigError
from backstay.gateway import AccessLog, DenyList, Gateway, GatewayOptions, Management, RevocationFeed, RouteTable
from backstay.gateway.management import Check
from backstay.http import HttpClient, HttpServer, Limits
from backstay.runtime import program
from backstay.runtime.composition import STOP_TIMEOUT, Composition
from backstay.runtime.connections import (
    enter_issuer_keys,
    kafka_broker,
    missing_for_tokens,
    registry_client,
    token_verifier,
)
from backstay.runtime.health import Readiness
from backstay.runtime.listening import listening
from backstay.runtime.management import enter_management
from backstay.runtime.registration import Registration
from backstay.runtime.settings import (
    KafkaSettings,
    LogSettings,
    ManagementSettings,
    Port,
    RegistrationSettings,
    Seconds,
    TokenSettings,
)
from backstay.telemetry.logs import get_logger

if TYPE_CHECKING:
    from backstay.messaging import Broker

REVOCATION_TYPE = "session.revoked"

AtLeastOne = Annotated[int, Meta(ge=1)]

log = get_logger()


@dataclass(frozen=True, kw_only=True)
class GatewaySettings(KafkaSettings, RegistrationSettings, TokenSettings, ManagementSettings, LogSettings):
    """Settings of a gateway besides its routes. Durations are seconds, sizes bytes."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    gateway_port: Port = 8080
    """Public port; 0 takes a free one."""
    revocations_topic: str = ""
    """Topic with the sessions that ended before their tokens did; with it `KAFKA` is required."""
    revocations_type: str = REVOCATION_TYPE
    """`ce_type` of such an event; its data are `{"sid": …, "until": …}`. Other events of the topic are passed over."""
    access_token_life: Seconds = 300.0
    """How long tokens live, so how far back revocations are read."""
    access_log: bool = True
    """Write a line for each request to standard output."""
    max_body: AtLeastOne = Limits().body
    """Largest request body."""
    max_clients: AtLeastOne = 10_000
    """Client connections at a time; more are closed immediately."""
    max_per_address: AtLeastOne = 500
    """Of them from one address (an IPv6 /64); trusted proxies and loopback are exempt."""
    address_rate: Annotated[float, Meta(ge=0)] = 200.0
    """Requests a second that one client address may make for long, whatever its tokens; 0: no limit."""
    address_burst: Annotated[float, Meta(ge=1)] = 1000.0
    """Requests that it may make at once."""
    head_timeout: Seconds = 10.0
    """From the first byte of a request to the end of its head."""
    keep_alive: Seconds = 60.0
    """How long an idle client connection stays open."""
    body_timeout: Seconds = 15.0
    """Over which the arrival of a request body is measured: at least 240 bytes for each second of it."""
    connect_timeout: Seconds = 2.0
    """For a connection to an upstream."""
    response_timeout: Seconds = 10.0
    """How long a service may take to begin its answer; the longest deadline that is passed on."""
    deadline_floor: Annotated[float, Meta(ge=0)] = 0.05
    """The shortest `x-request-deadline-ms` that is tried; a shorter one is answered 504 and nothing is sent."""
    deadline_ceiling: Seconds = 300.0
    """The longest that is honoured, also on a route without a response time-out; a longer one is lowered to it."""
    idle_timeout: Seconds = 30.0
    """How long an answer may stall, on the service's side or the client's."""
    total_timeout: Seconds = 300.0
    """For a whole exchange."""
    drain_timeout: Seconds = 15.0
    """How long requests in flight may take to finish at a stop."""
    eject_seconds: Seconds = 10.0
    """How long an instance that refused a connection is left out."""
    instance_wait: Annotated[float, Meta(ge=0)] = 1.0
    """How long a request waits for an instance while there is none."""
    upstream_idle: Seconds = 4.0
    """How long an idle upstream connection is kept; shorter than the upstreams' own keep-alive."""
    upstream_connections: AtLeastOne = 512
    """The most connections to one instance."""
    retry_after: AtLeastOne = 1
    """What a 503 tells the client to wait."""

    def problems(self) -> list[str]:
        """Contradictions among the gateway's settings besides the base's own."""
        found = super().problems()
        if self.revocations_topic and not self.kafka:
            found.append("KAFKA is not set: REVOCATIONS_TOPIC is read from it; name host:port of the broker")
        return found

    def options(self) -> GatewayOptions:
        """Return the limits and time-outs of the data plane."""
        same = {field.name for field in fields(GatewayOptions)} & {field.name for field in fields(self)}
        return GatewayOptions(limits=Limits(body=self.max_body), **{name: getattr(self, name) for name in same})


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """A gateway between its start and its ordered stop."""

    gateway: Gateway
    management: HttpServer

    def stop_draining(self) -> None:
        """Cut the requests in flight instead of waiting for them."""
        self.gateway.stop_draining()

    async def ended(self) -> None:
        """Never return: it ends by a signal."""
        await asyncio.Event().wait()

    def described(self) -> dict[str, Any]:
        """Return where it is reached, for the log."""
        return {"url": f"http://{self.gateway.host}:{self.gateway.port}", "management": self.management.port}


class GatewayProcess:
    """Runs a gateway until a signal.

    Args:
        settings: addresses, limits and time-outs.
        routes: the compiled route table.
        policies: the circuit breakers that routes name.
        registry: finds instances; by default the one of `DISCOVERY_URL`, where the gateway registers, too.
        broker: brings revocations; by default the one of `KAFKA`.
        revocations_topic: the application's own topic of revocations, where `REVOCATIONS_TOPIC` names none.
        name: what the registry, logs and metrics call it.
        version: shown by `/info`; the application's own.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        routes: RouteTable,
        *,
        policies: r.Registry | None = None,
        registry: Registry | None = None,
        broker: "Broker | None" = None,
        revocations_topic: str = "",
        name: str = "gateway",
        version: str = "",
    ) -> None:
        self.settings = settings
        self.routes = routes
        self.name = name
        self.version = version
        self._policies = r.Registry() if policies is None else policies
        self._registry = registry
        self._broker = broker
        self._revocations_topic = settings.revocations_topic or revocations_topic
        self._watched: dict[str, Check] = {}
        for breaker in self._policies.breakers():
            breaker.on(r.StateTransition, _log_transition)

    def missing(self, roles: Collection[str] | None = None) -> list[str]:  # noqa: ARG002 - it has but one role
        """Return what isn't configured of whose tokens are accepted, a sentence each."""
        guarded = [route.id for route in self.routes.routes if not route.public]
        return missing_for_tokens(self.settings, guarded) if guarded else []

    def run(self, roles: Collection[str] | None = None) -> None:  # noqa: ARG002 - it has but one role
        """The whole program; exits with a message if it can't start."""
        program.run(self.name, lambda: self.settings, self.serve)

    def execute(self) -> None:
        """Run as a part of another program, such as a command line: errors are raised."""
        program.execute(self.name, self.settings, self.serve)

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order; a second signal cuts what is in flight."""
        await program.serve("gateway", self.running())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RunningGateway]:
        """The gateway between its start and its ordered stop."""
        if problems := self.missing():
            raise ConfigError(problems)
        async with Composition() as parts:
            http = await parts.enter("connections", HttpClient())
            eureka = await self._discovery(parts, http)
            gateway = await self._gateway(parts, http, self._registry or eureka or StaticRegistry({}))
            management = await self._management(parts, gateway)
            if eureka is not None:
                registration = Registration(eureka, Readiness([]), self.settings)
                metadata = {"management.port": str(management.port)}
                await registration.enter(parts, self.name, self.settings.host, gateway.port, metadata=metadata)
            yield RunningGateway(gateway, management)

    async def _discovery(self, parts: Composition, http: HttpClient) -> EurekaClient | None:
        if self._registry is not None or (client := registry_client(self.settings, http)) is None:
            return None
        self._watched["registry"] = lambda: None if client.healthy else "the last list is kept; no answer lately"
        return await parts.enter("registry", client)

    async def _gateway(self, parts: Composition, http: HttpClient, registry: Registry) -> Gateway:
        settings = self.settings
        gateway = Gateway(
            self.routes,
            registry,
            verifier=await self._verifier(parts, http),
            denied=await self._revocations(parts),
            policies=self._policies,
            host=settings.host,
            port=settings.gateway_port,
            options=settings.options(),
            access_log=self._access_log(),
        )
        with listening(settings.host, settings.gateway_port, port_name="GATEWAY_PORT"):
            return await parts.enter("gateway", gateway, stop_timeout=settings.drain_timeout + STOP_TIMEOUT)

    def _access_log(self) -> AccessLog | None:
        settings = self.settings
        if not settings.access_log:
            return None
        return AccessLog(sys.stdout.buffer, service=self.name, format=settings.log_format)

    async def _verifier(self, parts: Composition, http: HttpClient) -> TokenVerifier | None:
        if not self.settings.token_issuer:
            return None  # every route is public, else the issuer would be missing
        keys = await enter_issuer_keys(parts, self.settings, http)
        self._watched["keys"] = lambda: None if keys.ready else keys.problem or "not fetched yet"
        return token_verifier(self.settings, keys)

    async def _revocations(self, parts: Composition) -> DenyList:
        denied, settings, topic = DenyList(), self.settings, self._revocations_topic
        if not topic:
            return denied
        broker = self._broker
        if broker is None and settings.kafka:
            broker = kafka_broker(settings, parts, client_id=self.name)
        if broker is not None:
            from backstay.runtime.revocations import revocation_stream  # needs the extra `messaging`

            stream = revocation_stream(broker, topic, settings.revocations_type)
            feed = RevocationFeed(denied, stream, lifetime=settings.access_token_life)
            self._watched["revocations"] = lambda: feed.problem
            await parts.enter("revocations", feed)
        return denied

    async def _management(self, parts: Composition, gateway: Gateway) -> HttpServer:
        own = {"version": self.version} if self.version else {}
        info = {"name": self.name, **own, "backstay": __version__, "routes": len(self.routes.routes)}
        pages = Management(gateway, watched=self._watched, info=info)
        return await enter_management(parts, self.settings, pages)


def _log_transition(event: r.StateTransition) -> None:
    log.warning(
        "circuit_breaker.state_transition",
        name=event.name,
        from_state=event.from_state.value,
        to_state=event.to_state.value,
    )


__all__ = ["GatewayProcess", "GatewaySettings", "RunningGateway"]
