"""Relaying from the write-ahead log: events come through a logical replication slot as their transactions commit."""

from backstay.outbox.wal.options import WalOptions
from backstay.outbox.wal.store import WalStore, empty_at_once

__all__ = ["WalOptions", "WalStore", "empty_at_once"]
