"""What a server says about committed inserts: the messages of `pgoutput`, protocol version 1 (PostgreSQL, chapter
"Logical Replication Message Formats").

Written out flat because every event passes here. Values come as text; a decoder belongs to one connection, whose
relation messages it remembers.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from operator import itemgetter
from struct import Struct
from typing import Any, NamedTuple, TypeAlias, cast

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
_BEGIN, _COMMIT, INSERT, _RELATION, _MESSAGE = b"BCIRM"
_TEXT = ord("t")
_LENGTH = Struct(">I").unpack_from
_COUNT = Struct(">H").unpack_from
_BEGIN_BODY = Struct(">qqI").unpack_from
_COMMIT_BODY = Struct(">bqqq").unpack_from
_Pick: TypeAlias = Callable[[list[bytes | None]], tuple[Any, ...]]
_MAX_WORDS = 10_000  # names of topics and types that are remembered


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
        self._words: dict[bytes, str] = {}
        self._last = (b"", datetime.min.replace(tzinfo=UTC))  # all events of a transaction have the same time

    def decode(self, data: bytes, at: int = 0) -> Message | None:
        """The message that begins at `at`, behind its replication header."""
        kind = data[at]
        if kind == INSERT:
            found = self.insert(data, at)
            return None if found is None else Insert(*found)
        if kind == _BEGIN:
            return Begin(_BEGIN_BODY(data, at + 1)[2])
        if kind == _COMMIT:
            return Commit(_COMMIT_BODY(data, at + 1)[2])
        if kind == _RELATION:
            self._relation(data, at)
        elif kind == _MESSAGE:
            return Mark(data[at + 10 : data.index(0, at + 10)].decode())
        return None

    def insert(self, data: bytes, at: int) -> tuple[Row, int, datetime | None] | None:
        """The event of the `INSERT` that begins at `at`: what `Insert` has, bare."""
        plan = self._plans.get(_LENGTH(data, at + 1)[0])
        if plan is None:
            return None
        pick, shard_at, due_at = plan
        values: list[bytes | None] = []
        add, length = values.append, _LENGTH
        position = at + 8
        for _ in range(_COUNT(data, at + 6)[0]):
            if data[position] == _TEXT:
                start = position + 5
                position = start + length(data, position + 1)[0]
                add(data[start:position])
            else:
                add(None)
                position += 1
        seq, ident, topic, name, kind, payload, headers, trace, time = pick(values)
        last, moment = self._last
        if time != last:
            moment = _time(time)
            self._last = time, moment
        row = (
            shard_of(name.decode()) if shard_at is None else int(values[shard_at] or 0),
            int(seq),
            ident,
            self._words.get(topic) or self._learn(topic),
            name,
            self._words.get(kind) or self._learn(kind),
            payload,
            headers and headers.decode(),
            trace and trace.decode(),
            moment,
        )
        due = None if due_at is None else values[due_at]
        return cast("Row", row), len(data), None if due is None else _time(due)

    def _learn(self, word: bytes) -> str:
        if len(self._words) >= _MAX_WORDS:
            self._words.clear()
        found = self._words[word] = word.decode()
        return found

    def _relation(self, data: bytes, at: int) -> None:
        oid = _LENGTH(data, at + 1)[0]
        schema_end = data.index(0, at + 5)
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
        place = {name: n for n, name in enumerate(names)}
        pick = itemgetter(*(place[column] for column in _COLUMNS))
        self._plans[oid] = pick, place.get("shard"), place.get("available_at")


def _time(text: bytes) -> datetime:
    """The connection's time zone is UTC."""
    return datetime.fromisoformat(text.decode()).replace(tzinfo=UTC)
