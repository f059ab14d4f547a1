"""Appending: the event is written on the connection, and in the transaction, of the state it belongs to."""

from collections.abc import Callable

from backstay.db import Database, Transaction, UniqueViolation
from backstay.errors import ConfigError
from backstay.messaging import Broker, Event
from backstay.outbox.foreign import conflict
from backstay.outbox.options import RelayOptions
from backstay.outbox.relay import Relay
from backstay.outbox.rows import OutboxRows, rows_of
from backstay.outbox.store import COMPONENT, VERSION_INDEX, PostgresStore, sql
from backstay.outbox.table import OutboxTable
from backstay.outbox.table_store import TableStore
from backstay.outbox.wal import WalOptions, WalStore
from backstay.outbox.wal.store import MIN_IDLE
from backstay.outbox.wire import RouterEncoder


class Outbox:
    """The outbox of one database. `source` is the source in its events (`/service/<database>`)."""

    def __init__(self, db: Database, *, source: str | None = None) -> None:
        self.source = source or f"/service/{db.name}"
        self._db = db
        self._nudges: list[Callable[[], None]] = []
        db.requires(COMPONENT)

    async def append(self, tx: Transaction, *events: Event, version: int | None = None) -> None:
        """Write events in the transaction of their state, in one round trip; their relay is woken by its commit.

        Append after the aggregate's row is locked or version-checked: the order of the inserts is the order of the
        events. UnusableEvent names an event that can't be written. `version` is the aggregate's after this change;
        VersionConflict: another transaction has published the same one.
        """
        if not events:
            return
        rows = self.rows(*events, version=version)
        try:
            if len(rows) == 1:
                await tx.execute(sql.append_one, *rows.values)
            else:
                await tx.execute(sql.append, *rows.arguments)
        except UniqueViolation as error:
            if error.constraint != VERSION_INDEX:
                raise
            raise conflict(rows) from error
        self.appended(tx)

    def rows(self, *events: Event, version: int | None = None) -> OutboxRows:
        """Return the same for a statement of the caller's own: see `OutboxRows.insert`. Call `appended` too."""
        return rows_of(events, version)

    def appended(self, tx: Transaction) -> None:
        """Wake the relay of this process when `tx` is committed."""
        if self._nudges:
            tx.after_commit(self._nudge)

    def relay(
        self,
        broker: Broker | None = None,
        *,
        name: str | None = None,
        wal: WalOptions | bool = False,
        table: OutboxTable | None = None,
        **options: float,
    ) -> Relay:
        """Return the relay of this outbox, to be entered; `options` are those of `RelayOptions`.

        wal: read events from the write-ahead log (the server's `wal_level` must be `logical`) rather than by polling.
        table: publish this table of somebody else's instead of our own.
        """
        if table is not None:
            return self._relay_of(table, broker, name, wal=bool(wal), options=RelayOptions(**options))  # type: ignore[arg-type]
        if wal and options.get("strict"):
            raise ConfigError("relay option strict=True: only a polling relay can do that, leave out wal=")
        store = WalStore(self._db, wal if isinstance(wal, WalOptions) else None) if wal else PostgresStore(self._db)
        relay = Relay(
            store,
            broker,
            name=name or self._db.name,
            source=self.source,
            options=RelayOptions(**({"min_idle": MIN_IDLE} if wal else {}) | options),  # type: ignore[arg-type]
        )
        if isinstance(store, WalStore):
            store.use_wake(relay.nudge)
        self._nudges.append(relay.nudge)
        return relay

    def _relay_of(
        self, table: OutboxTable, broker: Broker | None, name: str | None, *, wal: bool, options: RelayOptions
    ) -> Relay:
        if wal:
            raise ConfigError(
                f"outbox table {table.table!r}: only our own table can be read from the log, leave out wal="
            )
        encoder = RouterEncoder(self.source, cloudevents=table.cloudevents)
        store = TableStore(self._db, table)
        return Relay(store, broker, name=name or self._db.name, source=self.source, options=options, encoder=encoder)

    def __repr__(self) -> str:
        return f"Outbox({self._db.name!r}, source={self.source!r})"

    def _nudge(self) -> None:
        for nudge in self._nudges:
            nudge()
