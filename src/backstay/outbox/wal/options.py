"""Settings of the WAL relay."""

import re
from dataclasses import dataclass

from backstay.errors import ConfigError

_NAME = re.compile(r"[a-z0-9_]{1,63}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class WalOptions:
    """Options of reading the write-ahead log. Times are seconds."""

    slot: str = ""
    """Replication slot, shared by all relays of an outbox; a server has one of a name. `backstay_<database>`."""
    publication: str = "backstay_outbox"
    """Made if it isn't there and the role owns the table."""
    max_retained_bytes: int = 4 * 1024**3
    """WAL the server may keep for the slot. Beyond it the slot is dropped and the table polled for a while; where rows
    leave the table at once, new events are refused instead."""
    confirm_interval: float = 1.0
    """Between two confirmations to the server, also when nothing comes."""
    retry: float = 0.5
    """Between two tries to get the slot: how soon a standby notices."""
    buffer_rows: int = 10_000
    """Events read from the log and not yet in flight, at most."""
    buffer_bytes: int = 16 * 1024 * 1024
    """The same in bytes; one event may go beyond it."""

    def __post_init__(self) -> None:
        problems = [
            f"wal option {name}={value!r}: must be above 0"
            for name in ("max_retained_bytes", "confirm_interval", "retry", "buffer_rows", "buffer_bytes")
            if (value := getattr(self, name)) <= 0
        ]
        problems += [
            f"wal option {name}={value!r}: 1 to 63 of a-z, 0-9 and _"
            for name, value in (("slot", self.slot or "default"), ("publication", self.publication))
            if not _NAME.match(value)
        ]
        if problems:
            raise ConfigError(problems)
