"""A service: its routes, what it owns, what it does in time, and the one order in which all of it starts and stops.

Start: identity and registry (in the background) → what is owned, in order → jobs → HTTP → registry entry (STARTING, UP
once ready). Stop: leave the registry → accept nothing new, finish requests → jobs → what is owned, in reverse →
identity and connections.
"""

import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any, Literal, Self, get_args

import structlog

from backstay.asgi.types import Receive, Scope, Send
from backstay.auth import TokenVerifier
from backstay.clock import SYSTEM
from backstay.discovery import Registry
from backstay.errors import ConfigError
from backstay.runtime import program
from backstay.runtime.health import Check
from backstay.runtime.jobs import Job, every
from backstay.service.idempotency import COMPONENT, pruning
from backstay.service.lifecycle import Running, role_of, start, start_hosted
from backstay.service.mounts import Mount
from backstay.service.routing import Route
from backstay.service.scopes import local_scope
from backstay.service.settings import ServiceSettings
from backstay.telemetry.logs import configure

Role = Literal["api", "consumer", "relay", "jobs"]
ROLES: frozenset[Role] = frozenset(get_args(Role))

INBOX_DAYS = 30
"""Days for which a consumer remembers what it has handled; a delivery after that would be handled again."""
PRUNE_INBOX_EVERY = 3600.0
"""Seconds between two prunings of the inbox."""


class Service:
    """One program: HTTP, events, time.

    Args:
        name: what the registry, logs and metrics call it.
        settings: read from the environment when it starts, if not given.
        routes: what it answers; every one needs an access token unless it is public. Applications of other frameworks
            among them: `mount("/admin", app)`.
        owns: async context managers, entered in this order and left in reverse. Databases, brokers' users and clients
            of other services among them get their addresses from the settings.
        jobs: what it does in time.
        ready: checks besides those that databases and consumers bring.
        prefix: path before every route's path.
        version: the service's own, for `/info` and its OpenAPI document; left out of `/info` if empty.
        verifier: checks access tokens; by default with the keys of the settings' issuer.
        registry: finds other services; by default the one of the settings, where this one registers too.
        broker: by default the Kafka of the settings.
    """

    def __init__(
        self,
        name: str,
        *,
        routes: Sequence[Route | Mount] = (),
        owns: Sequence[AbstractAsyncContextManager[Any]] = (),
        jobs: Sequence[Job] = (),
        ready: Sequence[Check] = (),
        settings: ServiceSettings | None = None,
        prefix: str = "",
        version: str = "",
        verifier: TokenVerifier | None = None,
        registry: Registry | None = None,
        broker: Any = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.routes = tuple(each.under(prefix) for each in routes if isinstance(each, Route))
        self.mounts = tuple(each.under(prefix) for each in routes if isinstance(each, Mount))
        self.owns = tuple(owns)
        self.ready = tuple(ready)
        self.version = version
        self.verifier = verifier
        self.registry = registry
        self.broker = broker
        self.jobs = (*jobs, *self._housekeeping())
        self._hosted: Running | None = None

    def __repr__(self) -> str:
        return f"Service({self.name!r}, {len(self.routes)} routes, {len(self.jobs)} jobs)"

    @asynccontextmanager
    async def running(
        self, roles: Collection[str] | None = None, *, environ: Mapping[str, str] | None = None
    ) -> AsyncIterator[Running]:
        """The service between its start and its ordered stop; what a test uses, and `serve`."""
        settings = self.settings or ServiceSettings.read(os.environ if environ is None else environ)
        async with start(self, settings, _checked(roles)) as it:
            yield it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: for a server such as uvicorn or Granian, another application that mounts it, or a test."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._hosted is None:
            raise RuntimeError(f"{self.name} has not been started: it needs the server's lifespan events")
        application = self._hosted.application
        if scope["type"] == "http":
            await application(local_scope(scope), receive, send)
        else:
            await application.connect(local_scope(scope), receive, send)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start with the server that calls us, and stop with it."""
        await receive()
        async with AsyncExitStack() as stack:
            try:
                settings = self._loaded(None)
                if not structlog.is_configured():
                    configure(self.name, settings.log_format, settings.log_level)
                self._hosted = await stack.enter_async_context(start_hosted(self, settings, ROLES))
            except Exception as error:  # noqa: BLE001 - the server reports it
                await send({"type": "lifespan.startup.failed", "message": f"{self.name}: {error}"})
                return
            try:
                await send({"type": "lifespan.startup.complete"})
                await receive()
            finally:
                self._hosted = None
        await send({"type": "lifespan.shutdown.complete"})

    async def serve(self, roles: Collection[str] | None = None) -> None:
        """Run until SIGTERM or SIGINT, then stop in order; a second signal stops the draining.

        Raises:
            Exception: the service could not start, or its HTTP server ended by itself.
        """
        await program.serve("service", self.running(roles))

    def missing(self, roles: Collection[str] | None = None) -> list[str]:
        """Return what its parts need and the settings lack, a sentence each."""
        return Running(self, self.settings or ServiceSettings(), _checked(roles)).missing()

    def run(self, roles: Collection[str] | None = None) -> None:
        """The whole program: settings, logs, uvloop, `serve`; exits with a message if it can't start.

        The status is then 2 where settings have to change first, else 1.
        """
        program.run(self.name, lambda: self._loaded(roles), lambda: self.serve(roles))

    def _loaded(self, roles: Collection[str] | None) -> ServiceSettings:
        """Read the settings that weren't given; raises ConfigError with all that is wrong or missing."""
        if self.settings is None:
            program.load(lambda: ServiceSettings.read(os.environ), self._with, roles=roles)
        assert self.settings is not None
        return self.settings

    def _with(self, settings: ServiceSettings) -> Self:
        self.settings = settings
        return self

    def _housekeeping(self) -> list[Job]:
        """What the kit itself needs of the service's database."""
        database: Any = next((thing for thing in self.owns if hasattr(thing, "requires")), None)
        keyed = next((route.name for route in self.routes if route.injected.key is not None), None)
        if keyed is not None and database is None:
            raise ConfigError(f"{self.name}: {keyed} takes an idempotency key, so owns=[...] must have a Database")
        found = []
        if keyed is not None:
            database.requires(COMPONENT)
            found.append(pruning(database))
        if database is not None and any(role_of(thing) == "consumer" for thing in self.owns):
            found.append(every(PRUNE_INBOX_EVERY, partial(_prune_inbox, database), name="prune-inbox"))
        if any(role_of(thing) == "relay" for thing in self.owns):
            found += [_dead_letter_copies(thing) for thing in self.owns if hasattr(thing, "on_parked")]
        return found


def _dead_letter_copies(consumer: Any) -> Job:
    from backstay.service.dead_letters import DeadLetterTopics

    return DeadLetterTopics(consumer).job()


async def _prune_inbox(database: Any) -> None:
    from backstay.messaging import prune_inbox

    await prune_inbox(database, older_than=SYSTEM.now() - timedelta(days=INBOX_DAYS))


def _checked(roles: Collection[str] | None) -> frozenset[str]:
    if roles is None:
        return frozenset(ROLES)
    if unknown := set(roles) - ROLES:
        raise ConfigError(f"role {', '.join(sorted(unknown))} is unknown; there are {', '.join(sorted(ROLES))}")
    return frozenset(roles)


__all__ = ["ROLES", "Role", "Service"]
