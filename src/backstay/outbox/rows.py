"""Events as rows of the outbox table: checked, encoded, and laid out as parallel arrays for one statement."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import msgspec

from backstay.ids import uuid7
from backstay.messaging import Event, event_spec
from backstay.outbox.errors import UnusableEvent
from backstay.telemetry import current

MAX_PAYLOAD = 900_000  # bytes of JSON; a broker takes a record of 1 MB unless told otherwise
MAX_NAME = 255  # characters of a topic, key or type
_INSERT = """
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, aggregateversion, headers, tracingspancontext)
SELECT r.id, r.topic, r.key, r.type, r.payload, r.version, r.headers, r.trace
FROM unnest({arrays}) WITH ORDINALITY AS r(id, topic, key, type, payload, version, headers, trace, n)
WHERE {where}
ORDER BY r.n"""
_TYPES = ("uuid", "text", "text", "text", "jsonb", "bigint", "jsonb", "text")


@dataclass(slots=True)
class OutboxRows:
    """Events as parallel arrays, one element per event."""

    ids: list[UUID] = field(default_factory=list)
    topics: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    payloads: list[str | None] = field(default_factory=list)
    versions: list[int | None] = field(default_factory=list)
    headers: list[str | None] = field(default_factory=list)
    traces: list[str | None] = field(default_factory=list)

    @property
    def arguments(self) -> tuple[list[object], ...]:
        """The eight arrays, in the order in which `insert` and the statement `append` take them."""
        return (
            list(self.ids),
            list(self.topics),
            list(self.keys),
            list(self.types),
            list(self.payloads),
            list(self.versions),
            list(self.headers),
            list(self.traces),
        )

    @property
    def values(self) -> tuple[object, ...]:
        """The first event, in the order in which the statement `append_one` takes it."""
        return (
            self.ids[0],
            self.topics[0],
            self.keys[0],
            self.types[0],
            self.payloads[0],
            self.versions[0],
            self.headers[0],
            self.traces[0],
        )

    @staticmethod
    def insert(first: int = 1, *, where: str = "true") -> str:
        """Return the INSERT for a caller's own CTE, guarded by `where`; parameters from `$first` on: `arguments`."""
        arrays = ", ".join(f"${first + n}::{kind}[]" for n, kind in enumerate(_TYPES))
        return _INSERT.format(arrays=arrays, where=where)

    def __len__(self) -> int:
        return len(self.ids)


def rows_of(events: Sequence[Event], version: int | None = None) -> OutboxRows:
    """Return the rows of `events`, with the current trace; the first event of each aggregate carries its `version`."""
    rows, trace = OutboxRows(), current_trace()
    versioned: set[tuple[str, str]] = set()
    for event in events:
        spec = event_spec(event)
        key = spec.key_of(event)
        payload = msgspec.json.encode(event).decode()
        mine = None if version is None or (spec.topic, key) in versioned else version
        versioned.add((spec.topic, key))
        add(rows, spec.topic, key, spec.type, payload, version=mine, trace=trace)
    return rows


def current_trace() -> str | None:
    """Return the trace of the work being done now, in the form Debezium's router reads (Java properties)."""
    context = current()
    return None if context is None else f"traceparent={context.traceparent}"


def add(
    rows: OutboxRows,
    topic: str,
    key: str,
    kind: str,
    payload: str | None,
    *,
    id: UUID | None = None,  # noqa: A002
    version: int | None = None,
    headers: Mapping[str, str] | None = None,
    trace: str | None = None,
) -> UUID:
    """Check one event and add it to `rows`; UnusableEvent names it when it can't be written."""
    _check(topic, key, kind, payload)
    ident = id or uuid7()
    rows.ids.append(ident)
    rows.topics.append(topic)
    rows.keys.append(key)
    rows.types.append(kind)
    rows.payloads.append(payload)
    rows.versions.append(version)
    rows.headers.append(json.dumps(dict(headers)) if headers else None)
    rows.traces.append(trace)
    return ident


def _check(topic: str, key: str, kind: str, payload: str | None) -> None:
    for what, value in (("topic", topic), ("key", key), ("type", kind)):
        if not value or len(value) > MAX_NAME or "\0" in value:
            raise UnusableEvent(
                f"event {kind!r} with key {key[:80]!r}: its {what} must have 1 to {MAX_NAME} characters and no NUL"
            )
    if payload is not None:
        check_payload(kind, key, payload)


def check_payload(kind: str, key: str, payload: str) -> None:
    """UnusableEvent when the table or the broker can't take a payload."""
    # Four bytes a character at most: the exact length matters only near the limit.
    if len(payload) * 4 > MAX_PAYLOAD and len(payload.encode()) > MAX_PAYLOAD:
        raise UnusableEvent(f"event {kind!r} with key {key!r}: its payload is larger than {MAX_PAYLOAD:,} bytes")
    if "\\u0000" in payload:
        raise UnusableEvent(f"event {kind!r} with key {key!r}: its payload holds a NUL character, jsonb can't")
