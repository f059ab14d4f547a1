"""The parts of a running service, and the order in which they come and go."""

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from backstay.auth import FixedEndpoints, JwksCache, ServiceTokens, TokenVerifier, parse_jwks, parse_token
from backstay.clock import SYSTEM
from backstay.discovery import EurekaClient, Registry
from backstay.errors import ConfigError
from backstay.http.client import HttpClient
from backstay.runtime.health import Check, Readiness, checks_of
from backstay.runtime.jobs import Job
from backstay.service.client import Client
from backstay.service.endpoint import Endpoint, Limits
from backstay.service.front import Front
from backstay.service.router import Router
from backstay.service.routing import Route
from backstay.service.server import Server, bind
from backstay.service.settings import ServiceSettings
from backstay.service.system import Facts, system_routes
from backstay.tasks import background
from backstay.telemetry.access import access_log
from backstay.telemetry.logs import get_logger
from backstay.telemetry.metrics import exposition

READY_EVERY = 0.25
"""Seconds between two looks at the checks while the service isn't ready."""
READY_LOOKS = 4
"""Looks in a row that must fail before a service that was ready says that it isn't."""
STEP_TIMEOUT = 60.0
"""Seconds one part may take to stop; then it is given up."""

_ROLES = {"backstay.messaging": ("Consumer", "consumer"), "backstay.outbox": ("Relay", "relay")}

log = get_logger()


class Blueprint(Protocol):
    """What a service is made of; `Service` is one."""

    name: str
    version: str
    routes: tuple[Route, ...]
    owns: tuple[AbstractAsyncContextManager[Any], ...]
    jobs: tuple[Job, ...]
    ready: tuple[Check, ...]
    verifier: TokenVerifier | None
    registry: Registry | None
    broker: Any


class Running:
    """A running service, for whoever started it."""

    def __init__(self, service: Blueprint, settings: ServiceSettings, roles: frozenset[str]) -> None:
        self.service = service
        self.settings = settings
        self.roles = roles
        self.http = HttpClient()
        self.registry: Registry | None = service.registry
        self.verifier: TokenVerifier | None = service.verifier
        self.tokens: dict[str | None, ServiceTokens] = {}
        """By the audience, the service that is called with it."""
        self.readiness = Readiness([*checks_of(service.owns), *service.ready])
        self._eureka: EurekaClient | None = None
        self._told_up = False
        self._server: Server | None = None
        self._front: Front | None = None

    @property
    def port(self) -> int:
        """The port that is really listened on."""
        if self._server is None:
            raise RuntimeError("the HTTP server has not been started")
        return self._server.port

    @property
    def url(self) -> str:
        """Where to reach it from here."""
        host = self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def stop_draining(self) -> None:
        """Don't wait for requests in flight any longer."""
        if self._server is not None:
            self._server.stop_draining()

    async def ended(self) -> None:
        """Return when the HTTP server is over, with its error if it failed."""
        if self._server is not None:
            await self._server.ended()

    def metrics(self) -> bytes:
        """Everything that is counted here, in Prometheus' text form."""
        routes = self._front.statistics() if self._front is not None else []
        parts = [*self.service.owns, *self.service.jobs, self.http, self.verifier, self._eureka]
        front = self._front
        refused = {"deadline": front.late, "overload": front.shed} if front else {}
        return exposition(self.service.name, routes, front.active if front else 0, parts, refused=refused)

    # The steps of the start, in their order. What each enters is left in reverse.

    async def identify(self, stack: AsyncExitStack) -> None:
        """Connections, the registry, the issuer's keys, our own token: all fetched in the background."""
        await _enter(stack, "connections", self.http)
        settings = self.settings
        if self.registry is None and settings.discovery_url:
            self._eureka = EurekaClient(
                settings.discovery_url.split(","),
                heartbeat=settings.heartbeat_interval,
                lease=settings.lease_duration,
                fetch=settings.fetch_interval,
                http=self.http,
            )
            self.registry = await _enter(stack, "registry", self._eureka)
        if self._needs_keys():
            self.verifier = await self._issuer(stack)
        if settings.client_id:
            await self._own_tokens(stack)

    def check_settings(self) -> None:
        """Raise ConfigError with every setting that is missing for what this service owns, serves and calls."""
        problems = [*self._unset_addresses(), *self.settings.missing(), *self._identity_problems(self._needs_keys())]
        if problems:
            raise ConfigError(problems)

    def _needs_keys(self) -> bool:
        return self.verifier is None and any(route.needs_caller for route in self.service.routes)

    def _unset_addresses(self) -> Iterator[str]:
        owned = [each for each in self.service.owns if (role := role_of(each)) is None or role in self.roles]
        if not self.settings.database_url and any(getattr(each, "lacks_dsn", False) for each in owned):
            yield "DATABASE_URL is not set: the service keeps its state in a database"
        no_broker = not self.settings.kafka and self.service.broker is None
        if no_broker and any(getattr(each, "lacks_broker", False) for each in owned):
            yield "KAFKA is not set: the service publishes or consumes events; name host:port of the broker"
        if self.registry is None and not self.settings.discovery_url:
            names = {each.target.app for each in owned if isinstance(each, Client) and each.target.app}
            if names:
                yield f"DISCOVERY_URL is not set: {', '.join(sorted(names))} is called by its name in the registry"

    def _identity_problems(self, needs_keys: bool) -> list[str]:
        settings, problems = self.settings, []
        if needs_keys and not settings.token_issuer:
            problems.append("TOKEN_ISSUER is not set: there are routes that need an access token of that issuer")
        if needs_keys and not settings.token_audience:
            problems.append(
                "TOKEN_AUDIENCE is not set: there are routes that need an access token; name what customers' are for"
            )
        if needs_keys and not settings.jwks_url:
            problems.append(
                "JWKS_URL is not set: there are routes that need an access token; name the key set's address"
            )
        if settings.client_id and not settings.token_url:
            problems.append("TOKEN_URL is not set: CLIENT_ID gets its access tokens there; name the endpoint's address")
        own = self.verifier.service if self.verifier is not None else self.service.name
        if own != self.service.name and any(route.internal for route in self.service.routes):
            problems.append(f"the verifier needs service={self.service.name!r}: there are routes for services only")
        return problems

    async def _issuer(self, stack: AsyncExitStack) -> TokenVerifier:
        settings = self.settings
        endpoints = FixedEndpoints(settings.jwks_url, self.http, variable="JWKS_URL", check=parse_jwks)
        jwks = await _enter(stack, "keys", JwksCache(endpoints.get, timeout=endpoints.timeout))
        return TokenVerifier(
            settings.token_issuer,
            settings.token_audience,
            jwks,
            service=self.service.name,
            max_lifetime=settings.token_max_lifetime,
        )

    async def _own_tokens(self, stack: AsyncExitStack) -> None:
        """One token for each service that is called: it is of no use at any other."""
        settings = self.settings
        endpoints = FixedEndpoints(settings.token_url, self.http, variable="TOKEN_URL", check=parse_token)
        scopes: dict[str | None, set[str]] = {}
        for thing in self.service.owns:
            if isinstance(thing, Client):
                scopes.setdefault(thing.audience, set()).update((thing.scope or "").split())
        for audience, wanted in scopes.items():
            tokens = ServiceTokens(
                endpoints.post,
                settings.client_id,
                settings.client_secret,
                " ".join(sorted(wanted)) or None,
                audience=audience,
                timeout=endpoints.timeout,
            )
            self.tokens[audience] = await _enter(stack, f"token for {audience or 'others'}", tokens)

    async def enter_owned(self, stack: AsyncExitStack) -> None:
        """Give what is owned its addresses, then enter those parts that our roles run."""
        broker = self.service.broker or await self._kafka(stack)
        for thing in self.service.owns:
            self._wire(thing, broker)
        for thing in self.service.owns:
            role = role_of(thing)
            if role is None or role in self.roles:
                await _enter(stack, type(thing).__name__.lower(), thing)
                if role is not None:
                    self.readiness.watch(thing)

    def _wire(self, thing: Any, broker: Any) -> None:
        if isinstance(thing, Client):
            thing.bind(self.http, self.registry, self.tokens.get(thing.audience))
        if self.settings.database_url and hasattr(thing, "use_dsn"):
            thing.use_dsn(self.settings.database_dsn())
        if broker is not None and hasattr(thing, "use_broker"):
            thing.use_broker(broker)

    async def _kafka(self, stack: AsyncExitStack) -> Any:
        if not self.settings.kafka or not any(hasattr(thing, "use_broker") for thing in self.service.owns):
            return None
        from backstay.messaging import KafkaBroker

        settings = self.settings
        broker = KafkaBroker(
            settings.kafka,
            flavor=settings.kafka_flavor,
            client_id=self.service.name,
            options=settings.kafka_client_options(),
            protocol=settings.kafka_group_protocol,
            instance=settings.kafka_instance or None,
        )
        stack.push_async_callback(_stop_step, "broker", broker.aclose)
        return broker

    async def begin_jobs(self, stack: AsyncExitStack) -> None:
        """Start every job as a task of its own."""
        if "jobs" not in self.roles:
            return
        for job in self.service.jobs:
            _spawn(stack, f"job {job.name}", job.run)

    async def start_http(self, stack: AsyncExitStack, listening: socket.socket) -> None:
        """Answer HTTP from now on."""
        settings, service = self.settings, self.service
        limits = Limits(settings.max_body, settings.body_timeout, settings.request_deadline, settings.max_requests)
        facts = Facts(
            name=service.name,
            version=service.version,
            roles=self.roles,
            routes=service.routes,
            readiness=self.readiness,
            metrics=self.metrics,
        )
        routes = [*system_routes(facts), *(service.routes if "api" in self.roles else ())]
        proxies = re.compile(settings.trusted_proxies) if settings.trusted_proxies else None
        endpoints = [Endpoint(route, limits=limits, verifier=self.verifier, proxies=proxies) for route in routes]
        log_lines = access_log(service.name, settings.log_format) if settings.log_level in ("debug", "info") else None
        self._front = Front(Router(endpoints), limits=limits, access_log=log_lines)
        server = Server(self._front, listening, keep_alive=settings.keep_alive, drain=settings.drain_timeout)
        self._server = await _enter(stack, "http server", server, timeout=settings.drain_timeout + STEP_TIMEOUT)

    async def register(self, stack: AsyncExitStack) -> None:
        """Announce ourselves, as STARTING until the checks have passed once; DOWN when they fail later."""
        if self._eureka is None or "api" not in self.roles:
            return
        settings = self.settings
        host = settings.advertised_host or (None if settings.host in ("0.0.0.0", "::") else settings.host)  # noqa: S104
        stack.push_async_callback(_stop_step, "registry entry", self._leave)
        ready = await self.readiness.passed()
        self._eureka.announce(self.service.name, self.port, host=host, status="UP" if ready else "STARTING")
        self._told_up = ready
        _spawn(stack, "readiness", partial(self._tell_readiness, self._eureka))

    async def _tell_readiness(self, eureka: EurekaClient) -> None:
        """Look with every heartbeat whether we are ready, and tell the registry when that has changed."""
        while True:
            up = self._told_up
            await SYSTEM.sleep(self.settings.heartbeat_interval if up else READY_EVERY)
            if await self._ready(looks=READY_LOOKS if up else 1) != up:
                up = not up
                await eureka.set_status("UP" if up else "DOWN")
                self._told_up = up
                log.info("service.ready") if up else log.warning("service.not-ready")

    async def _ready(self, looks: int) -> bool:
        """Return whether one of so many looks is good: who is merely busy must not be taken out of service."""
        for look in range(looks):
            if look:
                await SYSTEM.sleep(READY_EVERY)
            if await self.readiness.passed():
                return True
        return False

    async def _leave(self) -> None:
        if self._eureka is not None:
            await self._eureka.leave()
            await asyncio.sleep(self.settings.drain_delay)


@asynccontextmanager
async def start(service: Blueprint, settings: ServiceSettings, roles: frozenset[str]) -> AsyncIterator[Running]:
    """Start everything in order; stop it in order when the block ends, however it ends."""
    running = Running(service, settings, roles)
    running.check_settings()  # before anything is bound or contacted: a taken port must not hide what is missing
    listening = bind(settings.host, settings.port)
    with contextlib.closing(listening):
        async with AsyncExitStack() as stack:
            await running.identify(stack)
            await running.enter_owned(stack)
            await running.begin_jobs(stack)
            await running.start_http(stack, listening)
            await running.register(stack)
            yield running


async def _enter(
    stack: AsyncExitStack, name: str, thing: AbstractAsyncContextManager[Any], *, timeout: float = STEP_TIMEOUT
) -> Any:
    entered = await thing.__aenter__()

    async def leave() -> None:
        await thing.__aexit__(None, None, None)

    stack.push_async_callback(_stop_step, name, leave, timeout)
    return entered


async def _stop_step(name: str, leave: Callable[[], Awaitable[object]], timeout: float = STEP_TIMEOUT) -> None:
    """Stop one part; whatever happens, the next one gets its turn."""
    try:
        async with asyncio.timeout(timeout):
            await leave()
    except Exception as error:
        log.error("service.stop-failed", part=name, error=f"{type(error).__name__}: {error}", exc_info=error)


def _spawn(stack: AsyncExitStack, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    task = background(work, name=name)
    stack.push_async_callback(_stop_step, name, task.stop)


def role_of(thing: object) -> str | None:
    """Return the role that runs `thing`, which may name it itself; None runs in every role."""
    if (named := getattr(thing, "role", None)) is not None:
        return str(named)
    for module, (kind, role) in _ROLES.items():
        known = getattr(sys.modules.get(module), kind, None)
        if known is not None and isinstance(thing, known):
            return role
    return None


__all__ = ["READY_EVERY", "STEP_TIMEOUT", "Running", "role_of", "start"]
