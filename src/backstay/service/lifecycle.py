"""The parts of a running service, and the order in which they come and go."""

import contextlib
import re
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from backstay.auth import FixedEndpoints, ServiceTokens, TokenVerifier, parse_token
from backstay.discovery import EurekaClient, Registry
from backstay.errors import ConfigError
from backstay.http.client import HttpClient
from backstay.runtime.composition import STOP_TIMEOUT, Composition
from backstay.runtime.connections import (
    enter_issuer_keys,
    kafka_broker,
    missing_for_tokens,
    registry_client,
    token_verifier,
)
from backstay.runtime.health import Check, Readiness, checks_of
from backstay.runtime.jobs import Job
from backstay.runtime.registration import Registration
from backstay.service.client import Client
from backstay.service.dispatch import Dispatcher
from backstay.service.endpoint import Endpoint, Limits
from backstay.service.mounts import Mount
from backstay.service.router import Router
from backstay.service.routing import Route
from backstay.service.server import Server, bind
from backstay.service.settings import ServiceSettings
from backstay.service.system import Facts, system_routes
from backstay.service.workers import OncePerHost, WorkerLock
from backstay.telemetry.access import access_log
from backstay.telemetry.metrics import exposition

HOST_STOP_TIMEOUT = 5 * STOP_TIMEOUT
"""Seconds for everything that one of several workers does to stop; each part of it has `STOP_TIMEOUT`."""

_ROLES = {"backstay.messaging": ("Consumer", "consumer"), "backstay.outbox": ("Relay", "relay")}


class Blueprint(Protocol):
    """What a service is made of; `Service` is one."""

    name: str
    version: str
    routes: tuple[Route, ...]
    mounts: tuple[Mount, ...]
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
        self._server: Server | None = None
        self._dispatcher: Dispatcher | None = None

    @property
    def application(self) -> Dispatcher:
        """What answers the requests."""
        if self._dispatcher is None:
            raise RuntimeError("the service has not been started")
        return self._dispatcher

    @property
    def port(self) -> int:
        """The port that is really listened on; the setting, where another server listens."""
        return self.settings.port if self._server is None else self._server.port

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

    def described(self) -> dict[str, Any]:
        """Return where it is reached and what it runs, for the log."""
        return {"url": self.url, "roles": sorted(self.roles)}

    def metrics(self) -> bytes:
        """Everything that is counted here, in Prometheus' text form."""
        dispatcher = self._dispatcher
        routes = dispatcher.statistics() if dispatcher is not None else []
        parts = [*self.service.owns, *self.service.jobs, self.http, self.verifier, self._eureka]
        refused = {"deadline": dispatcher.late, "overload": dispatcher.shed} if dispatcher else {}
        return exposition(self.service.name, routes, dispatcher.active if dispatcher else 0, parts, refused=refused)

    # The steps of the start, in their order. What each enters is left in reverse.

    async def identify(self, parts: Composition) -> None:
        """Connections, the registry, the issuer's keys, our own token: all fetched in the background."""
        await parts.enter("connections", self.http)
        settings = self.settings
        if self.registry is None and (eureka := registry_client(settings, self.http)) is not None:
            self.registry = self._eureka = await parts.enter("registry", eureka)
        if self._needs_keys():
            keys = await enter_issuer_keys(parts, settings, self.http)
            self.verifier = token_verifier(settings, keys, service=self.service.name)
        if settings.client_id:
            await self._own_tokens(parts)

    def missing(self) -> list[str]:
        """Return every setting that is missing for what this service owns, serves and calls."""
        return [*self._unset_addresses(), *self._identity_problems()]

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

    def _identity_problems(self) -> list[str]:
        settings = self.settings
        problems = missing_for_tokens(settings) if self._needs_keys() else []
        if settings.client_id and not settings.token_url:
            problems.append("TOKEN_URL is not set: CLIENT_ID gets its access tokens there; name the endpoint's address")
        own = self.verifier.service if self.verifier is not None else self.service.name
        if own != self.service.name and any(route.internal for route in self.service.routes):
            problems.append(f"the verifier needs service={self.service.name!r}: there are routes for services only")
        return problems

    async def _own_tokens(self, parts: Composition) -> None:
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
            self.tokens[audience] = await parts.enter(f"token for {audience or 'others'}", tokens)

    async def enter_owned(self, parts: Composition) -> None:
        """Give what is owned its addresses, then enter those parts that our roles run."""
        self.wire_owned(parts)
        for thing in self.service.owns:
            await self._enter_one(thing, parts)

    def wire_owned(self, parts: Composition) -> None:
        """Give what is owned its addresses."""
        broker = self.service.broker or self._kafka(parts)
        for thing in self.service.owns:
            self._wire(thing, broker)

    async def _enter_one(self, thing: AbstractAsyncContextManager[Any], parts: Composition) -> None:
        role = role_of(thing)
        if role is None or role in self.roles:
            await parts.enter(type(thing).__name__.lower(), thing)
            if role is not None:
                self.readiness.watch(thing)

    async def enter_shared(self, parts: Composition) -> None:
        """Enter what each of several workers needs: the owned parts that run in every role."""
        self.wire_owned(parts)
        for thing in self.service.owns:
            if role_of(thing) is None:
                await self._enter_one(thing, parts)

    async def enter_once(self, parts: Composition) -> None:
        """Enter what one of several workers does: consumers, relay, jobs, and the entry in the registry."""
        for thing in self.service.owns:
            if role_of(thing) is not None:
                await self._enter_one(thing, parts)
        self.start_jobs(parts)
        await self.register(parts)

    def _wire(self, thing: Any, broker: Any) -> None:
        if isinstance(thing, Client):
            thing.bind(self.http, self.registry, self.tokens.get(thing.audience))
        if self.settings.database_url and hasattr(thing, "use_dsn"):
            thing.use_dsn(self.settings.database_dsn())
        if broker is not None and hasattr(thing, "use_broker"):
            thing.use_broker(broker)

    def _kafka(self, parts: Composition) -> Any:
        settings = self.settings
        if not settings.kafka or not any(hasattr(thing, "use_broker") for thing in self.service.owns):
            return None
        return kafka_broker(
            settings,
            parts,
            client_id=self.service.name,
            protocol=settings.kafka_group_protocol,
            instance=settings.kafka_instance,
        )

    def start_jobs(self, parts: Composition) -> None:
        """Start every job as a task of its own."""
        if "jobs" not in self.roles:
            return
        for job in self.service.jobs:
            parts.background(f"job {job.name}", job.run)

    async def build_application(self, parts: Composition) -> Dispatcher:
        """Start the mounted applications and make ready to answer requests."""
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
        mounts = service.mounts if "api" in self.roles else ()
        for each in mounts:
            await parts.enter(f"application at {each.path}", each.running())
        self._dispatcher = Dispatcher(Router(endpoints), limits=limits, mounts=mounts, access_log=log_lines)
        return self._dispatcher

    async def start_http(self, parts: Composition, listening: socket.socket) -> None:
        """Answer HTTP from now on."""
        settings = self.settings
        application = await self.build_application(parts)
        server = Server(application, listening, keep_alive=settings.keep_alive, drain=settings.drain_timeout)
        stop_timeout = settings.drain_timeout + STOP_TIMEOUT
        self._server = await parts.enter("http server", server, stop_timeout=stop_timeout)

    async def register(self, parts: Composition) -> None:
        """Announce this process where it serves an API."""
        if self._eureka is None or "api" not in self.roles:
            return
        registration = Registration(self._eureka, self.readiness, self.settings)
        await registration.enter(parts, self.service.name, self.settings.host, self.port)


@asynccontextmanager
async def start(service: Blueprint, settings: ServiceSettings, roles: frozenset[str]) -> AsyncIterator[Running]:
    """Start everything in order; stop it in order when the block ends, however it ends."""
    running = Running(service, settings, roles)
    if problems := running.missing():  # before anything is bound or contacted: a taken port must not hide them
        raise ConfigError(problems)
    listening = bind(settings.host, settings.port)
    with contextlib.closing(listening):
        async with Composition() as parts:
            await running.identify(parts)
            await running.enter_owned(parts)
            running.start_jobs(parts)
            await running.start_http(parts, listening)
            await running.register(parts)
            yield running


@asynccontextmanager
async def start_hosted(service: Blueprint, settings: ServiceSettings, roles: frozenset[str]) -> AsyncIterator[Running]:
    """Start everything but a server, in a process in which another ASGI server listens; it may have several workers."""
    running = Running(service, settings, roles)
    problems = running.missing()
    if settings.discovery_url and service.registry is None and not settings.port:
        problems.append("PORT is not set: another server listens, and the registry needs its port")
    if problems:
        raise ConfigError(problems)
    # Without a port nothing says whose worker this is: then it does everything itself.
    lock = WorkerLock(f"{service.name}-{settings.port}") if settings.port else None
    async with Composition() as parts:
        await running.identify(parts)
        await running.enter_shared(parts)
        await running.build_application(parts)
        await parts.enter("parts of one worker", OncePerHost(lock, running.enter_once), stop_timeout=HOST_STOP_TIMEOUT)
        yield running


def role_of(thing: object) -> str | None:
    """Return the role that runs `thing`, which may name it itself; None runs in every role."""
    if (named := getattr(thing, "role", None)) is not None:
        return str(named)
    for module, (kind, role) in _ROLES.items():
        known = getattr(sys.modules.get(module), kind, None)
        if known is not None and isinstance(thing, known):
            return role
    return None


__all__ = ["Running", "role_of", "start", "start_hosted"]
