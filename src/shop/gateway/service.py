"""The gateway as a process: what it is made of, and the order in which that comes and goes.

Start: connections → registry list → the issuer's keys → revocations → public port → management port → registry entry.
Stop: leave the registry → accept nothing new, finish requests → the rest in reverse.
"""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from backstay import resilience as r
from backstay.auth import FixedEndpoints, JwksCache, TokenVerifier, parse_jwks
from backstay.discovery import EurekaClient, Registry, StaticRegistry
from backstay.errors import BackstayError, ConfigError
from backstay.gateway import AccessLog, DenyList, Gateway, GatewayOptions, Management, RevocationFeed, RouteTable
from backstay.gateway.management import Check
from backstay.http import HttpClient, HttpServer, Limits
from backstay.messaging import Broker
from backstay.runtime.gc_tuning import freeze_gc
from backstay.runtime.stopping import StopSignal
from backstay.telemetry import logs
from shop.gateway.config import GatewaySettings
from shop.gateway.handlers import ended_sessions
from shop.kernel.resilience import Seconds, policies

log = logs.get_logger()


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway at work."""

    gateway: Gateway
    management: HttpServer


class GatewayProcess:
    """Runs the gateway until it is told to stop."""

    def __init__(
        self,
        settings: GatewaySettings,
        routes: RouteTable,
        *,
        registry: Registry | None = None,
        broker: Broker | None = None,
    ) -> None:
        """`registry` and `broker` are those of the settings if they aren't given."""
        self.settings = settings
        self.routes = routes
        self._policies = _policies(settings, routes)
        self._registry = registry
        self._broker = broker
        self._watched: dict[str, Check] = {}

    def run(self, roles: Collection[str] | None = None) -> None:  # noqa: ARG002 - it has but one role
        """The whole program; leaves with status 1 and a message if it can't start."""
        import uvloop

        logs.configure("gateway", self.settings.log_format, self.settings.log_level)
        try:
            uvloop.run(self.serve())
        except (BackstayError, OSError) as error:
            print(f"gateway: {error}", file=sys.stderr, flush=True)  # noqa: T201 - the last word
            sys.exit(1)

    async def serve(self) -> None:
        """Serve until SIGTERM or SIGINT, then stop in order; a second signal cuts what is in flight."""
        with StopSignal() as stop:
            async with stop.cancels_start(), self.running() as it:
                stop.started(it.gateway.stop_draining)
                freeze_gc()
                url = f"http://{it.gateway.host}:{it.gateway.port}"
                log.info("gateway.started", url=url, management=it.management.port)
                await stop.wait_or(_for_ever())
                log.info("gateway.stopping", signal=stop.name)
        log.info("gateway.stopped")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """The gateway between its start and its ordered stop."""
        if problems := self.missing():
            raise ConfigError(problems)
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(HttpClient())
            eureka = await self._discovery(stack, http)
            registry = self._registry or eureka or StaticRegistry({})
            gateway = await stack.enter_async_context(
                Gateway(
                    self.routes,
                    registry,
                    verifier=await self._verifier(stack, http),
                    denied=await self._revocations(stack),
                    policies=self._policies,
                    host=self.settings.host,
                    port=self.settings.gateway_port,
                    options=self._options(),
                    access_log=AccessLog(sys.stdout.buffer, format=self.settings.log_format),
                )
            )
            management = await stack.enter_async_context(self._management(gateway))
            if eureka is not None:
                self._announce(stack, eureka, gateway, management)
            yield Running(gateway, management)

    async def _discovery(self, stack: AsyncExitStack, http: HttpClient) -> EurekaClient | None:
        settings = self.settings
        if self._registry is not None or not settings.discovery_url:
            return None
        client = EurekaClient(
            settings.discovery_url.split(","),
            heartbeat=settings.heartbeat_interval,
            lease=settings.lease_duration,
            fetch=settings.fetch_interval,
            http=http,
        )
        self._watched["registry"] = lambda: None if client.healthy else "the last list is kept; no answer lately"
        return await stack.enter_async_context(client)

    def missing(self, roles: Collection[str] | None = None) -> list[str]:  # noqa: ARG002 - it has but one role
        """Return what isn't configured of whose tokens are accepted, a sentence each."""
        needed = {"TOKEN_ISSUER": self.settings.token_issuer, "JWKS_URL": self.settings.jwks_url}
        return [
            f"{name} is not set: routes need access tokens of a fixed issuer"
            for name, value in needed.items()
            if not value
        ]

    async def _verifier(self, stack: AsyncExitStack, http: HttpClient) -> TokenVerifier:
        settings = self.settings
        endpoints = FixedEndpoints(settings.jwks_url, http, variable="JWKS_URL", check=parse_jwks)
        keys = await stack.enter_async_context(JwksCache(endpoints.get, timeout=endpoints.timeout))
        self._watched["keys"] = lambda: None if keys.ready else keys.problem or "not fetched yet"
        return TokenVerifier(
            settings.token_issuer, settings.token_audience, keys, max_lifetime=settings.token_max_lifetime
        )

    async def _revocations(self, stack: AsyncExitStack) -> DenyList:
        denied = DenyList()
        broker = self._broker or self._kafka(stack)
        if broker is not None:
            feed = RevocationFeed(denied, ended_sessions(broker), lifetime=self.settings.access_token_life)
            self._watched["revocations"] = lambda: feed.problem
            await stack.enter_async_context(feed)
        return denied

    def _kafka(self, stack: AsyncExitStack) -> Broker | None:
        if not self.settings.kafka:
            return None
        from backstay.messaging import KafkaBroker

        broker = KafkaBroker(
            self.settings.kafka,
            flavor=self.settings.kafka_flavor,
            client_id="gateway",
            options=self.settings.kafka_client_options(),
        )
        stack.push_async_callback(broker.aclose)
        return broker

    def _options(self) -> GatewayOptions:
        settings = self.settings
        return GatewayOptions(
            limits=Limits(body=settings.max_body),
            response_timeout=settings.response_timeout,
            connect_timeout=settings.connect_timeout,
            drain_timeout=settings.drain_timeout,
        )

    def _management(self, gateway: Gateway) -> HttpServer:
        management = Management(
            gateway, watched=self._watched, info={"name": "gateway", "routes": len(self.routes.routes)}
        )
        return HttpServer(management, self.settings.management_host, self.settings.management_port)

    def _announce(self, stack: AsyncExitStack, eureka: EurekaClient, gateway: Gateway, management: HttpServer) -> None:
        settings = self.settings
        host = settings.advertised_host or (settings.host if settings.host not in ("0.0.0.0", "::") else None)  # noqa: S104
        eureka.announce("gateway", gateway.port, host=host, metadata={"management.port": str(management.port)})

        async def leave() -> None:
            with contextlib.suppress(TimeoutError):
                await eureka.leave()
            await asyncio.sleep(settings.drain_delay)

        stack.push_async_callback(leave)


def _policies(settings: GatewaySettings, routes: RouteTable) -> r.Registry:
    """Return the circuit breakers that the routes name, as `resilience.yaml` has them; raises ConfigError."""
    values = {name: value for name, value in vars(settings).items() if name.startswith("service_")}
    values["service_wait_open"] = Seconds(settings.service_wait_open)
    registry = policies(routes.breakers, values, {})
    for breaker in registry.breakers():
        breaker.on(r.StateTransition, _tell)
    return registry


def _tell(event: r.StateTransition) -> None:
    log.warning(
        "circuit_breaker.state_transition",
        name=event.name,
        from_state=event.from_state.value,
        to_state=event.to_state.value,
    )


async def _for_ever() -> None:
    await asyncio.Event().wait()
