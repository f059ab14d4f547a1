"""Committed inserts as a server sends them: the messages of `pgoutput`, protocol version 1 (PostgreSQL, chapter
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
_OWN = (
    *("id", "aggregatetype", "aggregateid", "type", "payload", "seq", "shard", "aggregateversion", "headers"),
    *("tracingspancontext", "timestamp", "available_at"),
)
_BEGIN, _COMMIT, INSERT, _RELATION, _MESSAGE = b"BCIRM"
_TEXT = ord("t")
_UUID = 2950  # the type's number
_LENGTH = Struct(">I").unpack_from
_COUNT = Struct(">H").unpack_from
_OWN_HEAD = Struct(">cI36scI").unpack_from  # the id, and how long the topic is
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
        self._own: set[int] = set()  # relations with the columns of our migration, in their order
        self._words: dict[bytes, str] = {}
        self._last = (b"", datetime.min.replace(tzinfo=UTC))  # all events of a transaction have the same time

    def decode(self, data: bytes, at: int = 0) -> Message | None:
        """Return the message that begins at `at`, behind its replication header."""
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
        """Return the event of the `INSERT` that begins at `at`: what `Insert` has, bare."""
        oid = _LENGTH(data, at + 1)[0]
        if oid in self._own:
            return self._insert_own(data, at)
        plan = self._plans.get(oid)
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
            self._moment(time),
        )
        due = None if due_at is None else values[due_at]
        return cast("Row", row), len(data), None if due is None else _time(due)

    def _insert_own(self, data: bytes, at: int) -> tuple[Row, int, datetime | None]:
        """Do the same for a third less, for the columns of our migration, most of which are NOT NULL."""
        length = _LENGTH
        _, _, ident, _, size = _OWN_HEAD(data, at + 8)
        start = at + 54
        position = start + size
        topic = data[start:position]
        start = position + 5
        position = start + length(data, position + 1)[0]
        name = data[start:position]
        start = position + 5
        position = start + length(data, position + 1)[0]
        kind = data[start:position]
        payload = headers = trace = due = None
        start = position + 5
        if data[position] == _TEXT:
            position = start + length(data, position + 1)[0]
            payload = data[start:position]
            start = position + 5
        else:
            start, position = position + 6, position + 1
        position = start + length(data, position + 1)[0]
        seq = int(data[start:position])
        start = position + 5
        position = start + length(data, position + 1)[0]
        shard = int(data[start:position])
        position += 5 + length(data, position + 1)[0] if data[position] == _TEXT else 1  # the aggregate's version
        if data[position] == _TEXT:
            start = position + 5
            position = start + length(data, position + 1)[0]
            headers = data[start:position].decode()
        else:
            position += 1
        if data[position] == _TEXT:
            start = position + 5
            position = start + length(data, position + 1)[0]
            trace = data[start:position].decode()
        else:
            position += 1
        start = position + 5
        position = start + length(data, position + 1)[0]
        moment = self._moment(data[start:position])
        if data[position] == _TEXT:
            due = _time(data[position + 5 :])
        words = self._words
        topic_, kind_ = words.get(topic) or self._learn(topic), words.get(kind) or self._learn(kind)
        row = (shard, seq, ident, topic_, name, kind_, payload, headers, trace, moment)
        return cast("Row", row), len(data), due

    def _moment(self, text: bytes) -> datetime:
        last, moment = self._last
        if text != last:
            moment = _time(text)
            self._last = text, moment
        return moment

    def _learn(self, word: bytes) -> str:
        if len(self._words) >= _MAX_WORDS:
            self._words.clear()
        found = self._words[word] = word.decode()
        return found

    def _relation(self, data: bytes, at: int) -> None:
        oid = _LENGTH(data, at + 1)[0]
        schema_end = data.index(0, at + 5)
        name_end = data.index(0, schema_end + 1)
        self._own.discard(oid)
        if data[schema_end + 1 : name_end] != TABLE.encode():
            self._plans.pop(oid, None)
            return
        position = name_end + 2
        (count,) = _COUNT(data, position)
        position += 2
        names: list[str] = []
        kinds: list[int] = []
        for _ in range(count):
            end = data.index(0, position + 1)
            names.append(data[position + 1 : end].decode())
            kinds.append(_LENGTH(data, end + 1)[0])
            position = end + 9
        if missing := [column for column in _COLUMNS if column not in names]:
            raise OutboxError(f"the publication leaves out columns of {TABLE}: {', '.join(missing)}; publish all of it")
        place = {name: n for n, name in enumerate(names)}
        pick = itemgetter(*(place[column] for column in _COLUMNS))
        if tuple(names) == _OWN and kinds[0] == _UUID:
            self._own.add(oid)
        self._plans[oid] = pick, place.get("shard"), place.get("available_at")


def _time(text: bytes) -> datetime:
    """The connection's time zone is UTC."""
    return datetime.fromisoformat(text.decode()).replace(tzinfo=UTC)
