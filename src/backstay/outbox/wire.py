"""From a row to the record that goes out."""

import json

from backstay.messaging import Envelope
from backstay.outbox.store import Row
from backstay.outbox.window import Pending

_ROW_OVERHEAD = 1500  # bytes of objects around one payload, roughly
_TRACE_KEY = "traceparent="


def pending(row: Row, source: str) -> Pending:
    """The record of a row, ready to be published."""
    data = None if row.payload is None else row.payload.encode()
    record = Envelope.record_for(
        topic=row.topic,
        key=row.key,
        id=row.id,
        type=row.type,
        source=source,
        data=data,
        time=row.timestamp,
        traceparent=_traceparent(row.trace),
        extra=_extra(row.headers) if row.headers else (),
    )
    return Pending(row.shard, row.seq, record, _ROW_OVERHEAD + (len(data) if data else 0))


def _traceparent(trace: str | None) -> str | None:
    """The column holds Java properties, one `name=value` a line."""
    if trace is None:
        return None
    if trace.startswith(_TRACE_KEY):
        return trace[len(_TRACE_KEY) :].split("\n", 1)[0].strip()
    lines = (line.strip() for line in trace.splitlines())
    return next((line[len(_TRACE_KEY) :] for line in lines if line.startswith(_TRACE_KEY)), None)


def _extra(headers: str) -> tuple[tuple[str, bytes], ...]:
    """More headers; whatever isn't an object of strings is written as JSON text rather than lost."""
    parsed = json.loads(headers)
    if not isinstance(parsed, dict):
        return (("headers", headers.encode()),)
    return tuple((name, (v if isinstance(v, str) else json.dumps(v)).encode()) for name, v in parsed.items())
