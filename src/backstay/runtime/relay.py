"""The relay as a process: publishes the outbox of a database.

Start: database → relay → management port. Stop in reverse: what is in flight is acknowledged, or repeated later.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from msgspec import Meta

from backstay.db import Database
from backstay.errors import ConfigError
from backstay.http import HttpServer
from backstay.messaging import Broker
from backstay.outbox import DEBEZIUM, QUARKUS, Outbox, OutboxTable, Relay
from backstay.outbox.options import RelayOptions
from backstay.runtime import program
from backstay.runtime.composition import Composition
from backstay.runtime.connections import kafka_broker
from backstay.runtime.health import Readiness, checks_of
from backstay.runtime.management import ManagementPages, enter_management
from backstay.runtime.settings import DatabaseSettings, KafkaSettings, LogSettings, ManagementSettings, Seconds
from backstay.telemetry.logs import get_logger
from backstay.telemetry.metrics import exposition

SHAPES = {"debezium": DEBEZIUM, "quarkus": QUARKUS}
"""Outbox tables of others, by the name of their shape."""
ROUTE = "outbox.event.{}"
"""Debezium's topic of an aggregate type."""
CONNECTIONS = 2
"""The most connections to the database."""

AtLeastOne = Annotated[int, Meta(ge=1)]
_DEFAULTS = RelayOptions()

log = get_logger()


@dataclass(frozen=True, kw_only=True)
class RelaySettings(KafkaSettings, DatabaseSettings, ManagementSettings, LogSettings):
    """Settings of a relay. Durations are seconds, sizes bytes."""

    relay_name: str = "relay"
    """Name of the relay in `backstay outbox status`, logs and metrics."""
    relay_source: str = ""
    """What events say they come from; `/service/<database>` if empty."""
    relay_strict: bool = False
    """Publish by transactions of the broker; every relay of the table must do so, or none."""
    relay_wal: bool = False
    """Read the write-ahead log instead of polling; the server's `wal_level` must be `logical`."""
    relay_table: str = ""
    """An outbox table of another product, in place of our own."""
    relay_shape: Literal["debezium", "quarkus"] = "debezium"
    """Columns of that table."""
    relay_route: str = ROUTE
    """Topic of its events; `{}` stands for the aggregate type."""
    relay_lease: Seconds = _DEFAULTS.lease
    """A relay that died is replaced after this long."""
    relay_batch_rows: AtLeastOne = _DEFAULTS.batch_rows
    """Rows in one read, and in one publish."""
    relay_window_rows: AtLeastOne = _DEFAULTS.window_rows
    """Rows in flight or not yet deleted, at most."""
    relay_window_bytes: AtLeastOne = _DEFAULTS.window_bytes
    """Bytes in flight, at most; one read may go beyond it."""
    relay_publishes: AtLeastOne = _DEFAULTS.publishes
    """Publishes at a time, each of other shards."""
    relay_min_idle: Annotated[float, Meta(ge=0)] = 0.0
    """Between two reads while little comes; 0: 2.5 ms polling, longer with `RELAY_WAL`."""
    relay_max_idle: Seconds = _DEFAULTS.max_idle
    """Between two reads when nothing has come for a while."""
    relay_gather: Seconds = _DEFAULTS.gather
    """Acknowledged rows gather this long before they are deleted, unless `RELAY_DELETE_ROWS` have come together."""
    relay_delete_rows: AtLeastOne = _DEFAULTS.delete_rows
    """This many acknowledged rows are deleted immediately."""
    relay_drain: Seconds = _DEFAULTS.drain
    """When stopping, what is in flight gets this long."""

    def problems(self) -> list[str]:
        """Contradictions among the relay's settings besides the base's own."""
        found = super().problems()
        if self.relay_strict and self.relay_wal:
            found.append("RELAY_STRICT=True: only a polling relay can do that, leave out RELAY_WAL")
        for check in (self.table, self.options, self.database_name):
            try:
                check()
            except ConfigError as error:
                found.extend(error.problems)
        return found

    def table(self) -> OutboxTable | None:
        """Return the table of another product that is published; None for our own. Raises ConfigError."""
        if not self.relay_table:
            return None
        return replace(SHAPES[self.relay_shape], table=self.relay_table, route=self.relay_route)

    def options(self) -> dict[str, Any]:
        """Return the relay's options; raises ConfigError where they contradict each other."""
        names = (field.name for field in fields(RelayOptions))
        given = {name: getattr(self, f"relay_{name}") for name in names}
        if not given["min_idle"]:  # polling and reading the log have defaults of their own
            del given["min_idle"]
        RelayOptions(**given)
        return given

    def database_name(self) -> str:
        """Return the name of the database in its URL, empty without one; raises ConfigError for what is no URL."""
        if not self.database_url:
            return ""
        name = urlsplit(self.database_url).path.strip("/")
        if not self.database_url.startswith(("postgresql://", "postgres://")) or not name:
            shown = self.database_url.rpartition("@")[2]
            text = f"{shown!r} is no database: postgresql://user:password@host:port/database"
            raise ConfigError(f"DATABASE_URL: {text}")
        return name


@dataclass(frozen=True, slots=True)
class RunningRelay:
    """A relay between its start and its ordered stop."""

    relay: Relay
    management: HttpServer
    settings: RelaySettings

    def stop_draining(self) -> None:
        """Do nothing: what is in flight has a time-out of its own."""

    async def ended(self) -> None:
        """Never return: it ends by a signal."""
        await asyncio.Event().wait()

    def described(self) -> dict[str, Any]:
        """Return what it publishes where, for the log."""
        database, kafka = self.settings.database_name(), self.settings.kafka
        return {"database": database, "kafka": kafka, "management": self.management.port}


class RelayProcess:
    """Runs a relay until a signal; `broker` is by default the one of `KAFKA`."""

    def __init__(self, settings: RelaySettings, *, broker: Broker | None = None) -> None:
        self.settings = settings
        self.name = settings.relay_name
        self._broker = broker

    def missing(self, roles: Collection[str] | None = None) -> list[str]:  # noqa: ARG002 - it has but one role
        """Return the addresses that aren't set, a sentence each."""
        found = []
        if not self.settings.database_url:
            found.append("DATABASE_URL is not set: name the database whose outbox is to be published")
        if not self.settings.kafka and self._broker is None:
            found.append("KAFKA is not set: name host:port of the broker")
        return found

    def run(self, roles: Collection[str] | None = None) -> None:  # noqa: ARG002 - it has but one role
        """The whole program; exits with a message if it can't start."""
        program.run(self.name, lambda: self.settings, self.serve)

    def execute(self) -> None:
        """Run as a part of another program, such as a command line: errors are raised."""
        program.execute(self.name, self.settings, self.serve)

    async def serve(self) -> None:
        """Publish until SIGTERM or SIGINT."""
        await program.serve("relay", self.running())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RunningRelay]:
        """The relay between its start and its ordered stop."""
        if problems := self.missing():
            raise ConfigError(problems)
        settings = self.settings
        db = Database(settings.database_name(), dsn=settings.database_dsn(), max_size=CONNECTIONS)
        relay = Outbox(db, source=settings.relay_source or None).relay(
            name=settings.relay_name, wal=settings.relay_wal, table=settings.table(), **settings.options()
        )
        async with Composition() as parts:
            broker = self._broker or kafka_broker(settings, parts, client_id=f"backstay-{self.name}")
            relay.use_broker(broker)
            await parts.enter("database", db)
            await parts.enter("relay", relay)
            management = await self._management(parts, db, relay)
            yield RunningRelay(relay, management, settings)
        counts = relay.statistics()
        log.info("relay.finished", published=counts.published, repeated=counts.failed)

    async def _management(self, parts: Composition, db: Database, relay: Relay) -> HttpServer:
        settings = self.settings
        readiness = Readiness(checks_of([db]))
        readiness.watch(relay)
        pages = ManagementPages(
            readiness,
            metrics=lambda: exposition(self.name, [], 0, [db, relay]),
            info={"name": self.name, "database": settings.database_name()},
        )
        return await enter_management(parts, settings, pages)


__all__ = ["RelayProcess", "RelaySettings", "RunningRelay"]
