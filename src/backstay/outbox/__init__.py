"""The transactional outbox: events written with the state they belong to, and the relay that publishes them.

box = Outbox(db)
async with db.transaction() as tx:
    ...                                        # the state, its row locked or version-checked
    await box.append(tx, OrderConfirmed(...))
async with box.relay(broker): ...
"""

from backstay.outbox.errors import OutboxError, UnusableEvent, VersionConflict
from backstay.outbox.foreign import append, append_rows, append_rows_sync, append_sync
from backstay.outbox.memory import MemoryStore
from backstay.outbox.options import RelayOptions, RelayStatistics
from backstay.outbox.outbox import Outbox
from backstay.outbox.parking import ParkedKey, list_parked, park, replay, resume, skip
from backstay.outbox.relay import Relay
from backstay.outbox.rows import OutboxRows, rows_of
from backstay.outbox.status import OutboxStatus, RelayStatus, read_status
from backstay.outbox.store import PostgresStore, Store
from backstay.outbox.table import DEBEZIUM, QUARKUS, OutboxTable
from backstay.outbox.table_store import TableStore
from backstay.outbox.wal import WalOptions, WalStore, empty_at_once

__all__ = [
    "DEBEZIUM",
    "QUARKUS",
    "MemoryStore",
    "Outbox",
    "OutboxError",
    "OutboxRows",
    "OutboxStatus",
    "OutboxTable",
    "ParkedKey",
    "PostgresStore",
    "Relay",
    "RelayOptions",
    "RelayStatistics",
    "RelayStatus",
    "Store",
    "TableStore",
    "UnusableEvent",
    "VersionConflict",
    "WalOptions",
    "WalStore",
    "append",
    "append_rows",
    "append_rows_sync",
    "append_sync",
    "empty_at_once",
    "list_parked",
    "park",
    "read_status",
    "replay",
    "resume",
    "rows_of",
    "skip",
]
