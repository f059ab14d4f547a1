"""From rows to the records that go out: CloudEvents in binary mode, as `Envelope.record_for` writes them.

Written out flat because every event passes here: what is the same for all events of a type is made once.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime

from backstay.messaging import Record
from backstay.outbox.store import Row
from backstay.outbox.waiting import Pending

_ROW_OVERHEAD = 1500  # bytes of objects around one payload, roughly
_TRACE_KEY = "traceparent="
_MAX_TYPES = 10_000  # remembered; more than that many types are no types

_OURS = frozenset(
    {
        "id",
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_subject",
        "ce_partitionkey",
        "ce_specversion",
        "ce_time",
        "content-type",
        "traceparent",
    }
)
_SPEC = ("ce_specversion", b"1.0")
_JSON = ("content-type", b"application/json")
_EPOCH = ("ce_time", b"1970-01-01T00:00:00.000000Z")

Header = tuple[str, bytes]


class Encoder:
    """Makes records of rows for one `source`."""

    def __init__(self, source: str) -> None:
        self._source: Header = ("ce_source", source.encode())
        self._types: dict[str, Header] = {}

    def encode(self, rows: Sequence[Row]) -> list[Pending]:
        """Return the records of the rows, ready to be published."""
        source, types = self._source, self._types
        made: list[Pending] = []
        last, moment = None, _EPOCH  # events of a transaction have the same time, and lie together
        for shard, seq, id_, topic, key, kind, payload, headers, trace, time in rows:
            ident = id_.encode() if isinstance(id_, str) else id_
            subject = key.encode() if isinstance(key, str) else key
            data = payload.encode() if isinstance(payload, str) else payload
            if time != last:
                last, moment = time, ("ce_time", _rfc3339(time))
            all_headers: tuple[Header, ...] = (
                ("id", ident),
                _SPEC,
                ("ce_id", ident),
                source,
                types.get(kind) or self._learn(kind),
                ("ce_subject", subject),
                ("ce_partitionkey", subject),
                _JSON,
                moment,
            )
            if trace is not None and (parent := _traceparent(trace)):
                all_headers += (("traceparent", parent),)
            if headers is not None:
                all_headers += _extra(headers)
            size = _ROW_OVERHEAD + (len(data) if data else 0)
            made.append(Pending(shard, seq, Record(topic, subject, data, all_headers), size, time))
        return made

    def _learn(self, kind: str) -> Header:
        if len(self._types) >= _MAX_TYPES:
            self._types.clear()
        header = self._types[kind] = ("ce_type", kind.encode())
        return header


class RouterEncoder(Encoder):
    """Makes the records of Debezium's outbox event router; optionally with the CloudEvents headers, too."""

    def __init__(self, source: str, *, cloudevents: bool = False) -> None:
        super().__init__(source)
        self._cloudevents = cloudevents

    def encode(self, rows: Sequence[Row]) -> list[Pending]:
        """Return the records of the rows."""
        made: list[Pending] = []
        for shard, seq, id_, topic, key, kind, payload, headers, trace, time in rows:
            ident = id_.encode() if isinstance(id_, str) else id_
            subject = key.encode() if isinstance(key, str) else key
            data = payload.encode() if isinstance(payload, str) else payload
            all_headers: tuple[Header, ...] = (("id", ident),)
            if self._cloudevents:
                all_headers += (_SPEC, ("ce_id", ident), self._source, self._types.get(kind) or self._learn(kind))
                all_headers += (("ce_subject", subject), ("ce_partitionkey", subject), _JSON)
                all_headers += (("ce_time", _rfc3339(time)),) if time else ()
            if trace is not None and (parent := _traceparent(trace)):
                all_headers += (("traceparent", parent),)
            if headers is not None:
                all_headers += tuple((name, value.encode()) for name, value in json.loads(headers).items())
            size = _ROW_OVERHEAD + (len(data) if data else 0)
            made.append(Pending(shard, seq, Record(topic, subject, data, all_headers), size, time))
        return made


def _rfc3339(time: datetime) -> bytes:
    if time.tzinfo is not UTC:
        time = time.astimezone(UTC)
    return (time.isoformat("T", "microseconds")[:-6] + "Z").encode()


def _traceparent(trace: str) -> bytes | None:
    """The column holds Java properties, one `name=value` a line."""
    if trace.startswith(_TRACE_KEY) and "\n" not in trace:
        return trace[len(_TRACE_KEY) :].strip().encode()
    lines = (line.strip() for line in trace.splitlines())
    return next((line[len(_TRACE_KEY) :].strip().encode() for line in lines if line.startswith(_TRACE_KEY)), None)


def _extra(headers: str) -> tuple[Header, ...]:
    """More headers, but those with names of ours; what isn't an object of strings is written as JSON text."""
    parsed = json.loads(headers)
    if not isinstance(parsed, dict):
        return (("headers", headers.encode()),)
    return tuple(
        (name, (v if isinstance(v, str) else json.dumps(v)).encode()) for name, v in parsed.items() if name not in _OURS
    )
