"""A record as the broker stores it, and its partition."""

from datetime import datetime
from typing import NamedTuple

import msgspec

Headers = tuple[tuple[str, bytes], ...]


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record of the log, to be published or as it was read.

    `value=None` is a tombstone. `partition` and `offset` are set on what was read; `partition` on a record to be
    published overrules the choice by key. `timestamp` is aware UTC, with milliseconds.
    """

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = None
    offset: int | None = None
    timestamp: datetime | None = None

    def header(self, name: str) -> bytes | None:
        """Return the first header of that name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None
