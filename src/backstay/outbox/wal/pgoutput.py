"""What a server says about committed inserts: the messages of `pgoutput`, protocol version 1 (PostgreSQL, chapter
"Logical Replication Message Formats").

Written out flat because every event passes here. Values come as text; a decoder belongs to one connection, whose
relation messages it remembers.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

from backstay.outbox.errors import OutboxError
from backstay.outbox.store import Row
from backstay.outbox.wal.shards import shard_of

TABLE = "outbox"
_COLUMNS = (
    "seq",
    "id",
    "aggregatetype",
    "aggregateid",
    "type",
    "payload",
    "headers",
    "tracingspancontext",
    "timestamp",
)
_BEGIN, _COMMIT, _INSERT, _RELATION, _MESSAGE = b"BCIRM"
_TEXT = ord("t")
_LENGTH = Struct(">I").unpack_from
_COUNT = Struct(">H").unpack_from
_BEGIN_BODY = Struct(">qqI").unpack_from
_COMMIT_BODY = Struct(">bqqq").unpack_from
_Pick: TypeAlias = Callable[[list[str | None]], tuple[Any, ...]]


class Begin(NamedTuple):
    """A transaction begins; all of it follows, for it is committed. `xid` are the lower 32 bits of its number."""

    xid: int


class Insert(NamedTuple):
    """An event. `due`: not to be published before."""

    row: Row
    size: int
    due: datetime | None


class Commit(NamedTuple):
    """The transaction is complete; `end` is the position behind it."""

    end: int


class Mark(NamedTuple):
    """A logical message inside a transaction."""

    prefix: str


Message: TypeAlias = Begin | Insert | Commit | Mark


class Decoder:
    """Messages of one connection; `decode` returns None for what doesn't matter."""

    def __init__(self) -> None:
        self._plans: dict[int, tuple[_Pick, int | None, int | None]] = {}

    def decode(self, data: bytes) -> Message | None:
        """One message, without its replication header."""
        kind = data[0]
        if kind == _INSERT:
            return self._insert(data)
        if kind == _BEGIN:
            return Begin(_BEGIN_BODY(data, 1)[2])
        if kind == _COMMIT:
            return Commit(_COMMIT_BODY(data, 1)[2])
        if kind == _RELATION:
            self._relation(data)
        elif kind == _MESSAGE:
            return Mark(data[10 : data.index(0, 10)].decode())
        return None

    def _insert(self, data: bytes) -> Insert | None:
        plan = self._plans.get(_LENGTH(data, 1)[0])
        if plan is None:
            return None
        pick, shard_at, due_at = plan
        values: list[str | None] = []
        position = 8
        for _ in range(_COUNT(data, 6)[0]):
            if data[position] == _TEXT:
                end = position + 5 + _LENGTH(data, position + 1)[0]
                values.append(data[position + 5 : end].decode())
                position = end
            else:
                values.append(None)
                position += 1
        seq, ident, topic, key, type_, payload, headers, trace, time = pick(values)
        shard = shard_of(key) if shard_at is None else int(values[shard_at])  # type: ignore[arg-type]
        row = Row(shard, int(seq), ident, topic, key, type_, payload, headers, trace, _time(time))
        due = None if due_at is None else values[due_at]
        return Insert(row, len(data), None if due is None else _time(due))

    def _relation(self, data: bytes) -> None:
        oid = _LENGTH(data, 1)[0]
        schema_end = data.index(0, 5)
        name_end = data.index(0, schema_end + 1)
        if data[schema_end + 1 : name_end] != TABLE.encode():
            self._plans.pop(oid, None)
            return
        position = name_end + 2
        (count,) = _COUNT(data, position)
        position += 2
        names: list[str] = []
        for _ in range(count):
            end = data.index(0, position + 1)
            names.append(data[position + 1 : end].decode())
            position = end + 9
        if missing := [column for column in _COLUMNS if column not in names]:
            raise OutboxError(f"the publication leaves out columns of {TABLE}: {', '.join(missing)}; publish all of it")
        at = {name: n for n, name in enumerate(names)}
        self._plans[oid] = itemgetter(*(at[column] for column in _COLUMNS)), at.get("shard"), at.get("available_at")


def _time(text: str) -> datetime:
    """The connection's time zone is UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
