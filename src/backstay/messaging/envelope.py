"""CloudEvents 1.0 in Kafka's binary mode, plus the header `id` that Debezium's outbox router writes.

The value is the data as it is, every attribute is a header. A reader needs `id` and `ce_type` and nothing else, so a
Debezium connector may write what we read; a writer sets the whole set, so any CloudEvents reader understands us.
"""

from datetime import UTC, datetime
from uuid import UUID

import msgspec

from backstay.messaging.errors import Unreadable
from backstay.messaging.record import Headers, Record

JSON = b"application/json"


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """The facts about an event besides its data.

    id: identity, equal for every delivery; type: dotted name; source: who wrote it; subject: the aggregate's id;
    time: when it happened, aware UTC; traceparent: W3C trace context of the writer; record: as it was read.
    """

    id: UUID
    type: str
    source: str | None
    subject: str | None
    time: datetime | None
    traceparent: str | None
    record: Record

    @classmethod
    def read(cls, record: Record) -> "Envelope":
        """Return the envelope of a record; Unreadable if `id` or `ce_type` is missing or malformed."""
        headers = dict(record.headers)
        get = headers.get
        try:
            type_, ident = headers["ce_type"].decode(), UUID(headers["id"].decode())
            time = get("ce_time")
            return cls(
                ident,
                type_ or _required(headers, "ce_type"),
                None if (source := get("ce_source")) is None else source.decode(),
                None if (subject := get("ce_subject")) is None else subject.decode(),
                None if time is None else _time(time),
                None if (trace := get("traceparent")) is None else trace.decode(),
                record,
            )
        except (KeyError, ValueError):
            raise _unreadable(headers) from None

    @staticmethod
    def record_for(
        *,
        topic: str,
        key: str,
        id: UUID,  # noqa: A002
        type: str,  # noqa: A002
        source: str,
        data: bytes | None,
        time: datetime | None = None,
        traceparent: str | None = None,
        extra: Headers = (),
    ) -> Record:
        """Return the record that carries an event; `extra` headers follow ours and must not repeat their names."""
        return Record(topic, key.encode(), data, headers_for(id, type, source, key, time, traceparent) + extra)


def headers_for(
    id: UUID,  # noqa: A002
    type: str,  # noqa: A002
    source: str,
    subject: str,
    time: datetime | None,
    traceparent: str | None,
) -> Headers:
    """Return the header set of an event, in the order it goes to the wire."""
    ident, key = str(id).encode(), subject.encode()
    headers: Headers = (
        ("id", ident),
        ("ce_specversion", b"1.0"),
        ("ce_id", ident),
        ("ce_source", source.encode()),
        ("ce_type", type.encode()),
        ("ce_subject", key),
        ("ce_partitionkey", key),
        ("content-type", JSON),
    )
    if time is not None:
        headers += (("ce_time", _rfc3339(time)),)
    if traceparent is not None:
        headers += (("traceparent", traceparent.encode()),)
    return headers


def _rfc3339(time: datetime) -> bytes:
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z").encode()


def _unreadable(headers: dict[str, bytes]) -> Unreadable:
    """Return the error for headers that could not be read: it names the first wrong one."""
    try:
        text = _required(headers, "id")
        _required(headers, "ce_type")
        for name in ("ce_source", "ce_subject", "traceparent"):
            _text(headers, name)
    except Unreadable as error:
        return error
    return Unreadable(f"header 'id' is no UUID: {text[:60]!r}")


def _required(headers: dict[str, bytes], name: str) -> str:
    text = _text(headers, name)
    if not text:
        raise Unreadable(f"header {name!r} is missing: the record is no event of ours")
    return text


def _text(headers: dict[str, bytes], name: str) -> str | None:
    value = headers.get(name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise Unreadable(f"header {name!r} is not UTF-8: {value[:40]!r}") from error


def _time(value: bytes) -> datetime | None:
    """Return a time that cannot be read is not worth losing the event."""
    try:
        time = datetime.fromisoformat(value.decode())
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
