import json
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.errors import ConfigError
from backstay.messaging import Envelope, Event
from backstay.outbox import OutboxRows, RelayOptions, UnusableEvent, append
from backstay.outbox.rows import MAX_PAYLOAD, add, rows_of
from backstay.outbox.store import Row
from backstay.outbox.waiting import Pending
from backstay.outbox.wire import Encoder
from backstay.telemetry import TraceContext, use


class Brewed(Event, topic="brews", type="brew.done", key="order_id"):
    order_id: UUID
    drink: str


def row(**changes: object) -> Row:
    values: dict[str, object] = {
        "shard": 3,
        "seq": 9,
        "id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "topic": "orders",
        "key": "o-1",
        "type": "order.confirmed",
        "payload": '{"a": "é"}',
        "headers": None,
        "trace": None,
        "timestamp": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        **changes,
    }
    return Row(**values)  # type: ignore[arg-type]


def pending(one: Row, source: str) -> Pending:
    [made] = Encoder(source).encode([one])
    return made


def test_events_become_arrays() -> None:
    """Each event is one element of every array, in order, with one version for all."""
    first, second = Brewed(order_id=uuid4(), drink="tea"), Brewed(order_id=uuid4(), drink="mate")
    rows = rows_of([first, second], 7)

    assert rows.topics == ["brews", "brews"]
    assert rows.keys == [str(first.order_id), str(second.order_id)]
    assert [json.loads(payload or "")["drink"] for payload in rows.payloads] == ["tea", "mate"]
    assert rows.versions == [7, 7]
    assert rows_of([first, first], 7).versions == [7, None]
    assert rows.ids == sorted(rows.ids)
    assert rows.traces == [None, None]
    assert len(rows) == 2
    assert {len(array) for array in rows.arguments} == {2}


def test_trace_is_kept() -> None:
    """The trace of the work that wrote the event goes with it."""
    context = TraceContext.new()
    with use(context):
        rows = rows_of([Brewed(order_id=uuid4(), drink="tea")], None)

    assert rows.traces == [f"traceparent={context.traceparent}"]


@pytest.mark.parametrize(
    ("topic", "key", "kind", "payload", "reason"),
    [
        ("", "k", "t", "{}", "topic"),
        ("orders", "", "t", "{}", "key"),
        ("orders", "k" * 256, "t", "{}", "key"),
        ("orders", "a\0b", "t", "{}", "NUL"),
        ("orders", "k", "t" * 256, "{}", "type"),
        ("orders", "k", "t", '"\\u0000"', "NUL"),
        ("orders", "k", "t", '"' + "é" * (MAX_PAYLOAD // 2) + '"', "larger"),
    ],
)
def test_unusable_event(topic: str, key: str, kind: str, payload: str, reason: str) -> None:
    """What the table or the broker can't take is refused before anything is written, and named."""
    rows = OutboxRows()
    with pytest.raises(UnusableEvent, match=reason):
        add(rows, topic, key, kind, payload)

    assert len(rows) == 0


async def test_append_on_any_connection() -> None:
    """`append` needs nothing but `execute`; payloads may be text, bytes, None, or what msgspec encodes."""
    sent: list[tuple[object, ...]] = []

    class Connection:
        async def execute(self, query: str, /, *args: object) -> str:
            sent.append(args)
            return "INSERT 0 1"

    for payload in ("{}", b"{}", {}, None):
        ident = await append(Connection(), topic="t", key="k", type="a.b", payload=payload, headers={"h": "1"})
        assert sent[-1][0] == ident
        assert sent[-1][4] == (None if payload is None else "{}")
    with pytest.raises(UnusableEvent, match=r"a\.b.*JSON"):
        await append(Connection(), topic="t", key="k", type="a.b", payload=object())
    assert len(sent) == 4


def test_record() -> None:
    """The record carries the payload as it lies in the table, under CloudEvents headers and Debezium's id."""
    trace = TraceContext.new().traceparent
    made = pending(row(trace=f"traceparent={trace}", headers='{"tenant": "a", "n": 1}'), "/service/orders")
    headers = dict(made.record.headers)

    assert (made.shard, made.seq) == (3, 9)
    assert (made.record.topic, made.record.key, made.record.value) == ("orders", b"o-1", '{"a": "é"}'.encode())
    assert headers["id"] == headers["ce_id"] == b"01890a5d-ac96-774b-bcce-b302099a8057"
    assert headers["ce_type"] == b"order.confirmed"
    assert headers["ce_source"] == b"/service/orders"
    assert headers["ce_subject"] == b"o-1"
    assert headers["ce_time"].startswith(b"2026-01-02T03:04:05")
    assert headers["traceparent"].decode() == trace
    assert (headers["tenant"], headers["n"]) == (b"a", b"1")


@given(
    key=st.text(min_size=1, max_size=20),
    kind=st.sampled_from(["a.b", "order.confirmed"]),
    payload=st.none() | st.text(max_size=20),
    traced=st.booleans(),
    time=st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])),
)
def test_record_is_the_envelopes(key: str, kind: str, payload: str | None, traced: bool, time: datetime) -> None:
    """The flat encoder writes to the byte what the envelope writes."""
    trace = TraceContext.new().traceparent if traced else None
    one = row(key=key, type=kind, payload=payload, trace=f"traceparent={trace}" if trace else None, timestamp=time)
    encoder = Encoder("/service/orders")
    expected = Envelope.record_for(
        topic="orders",
        key=key,
        id=UUID(one.id),
        type=kind,
        source="/service/orders",
        data=None if payload is None else payload.encode(),
        time=time,
        traceparent=trace,
    )

    assert [made.record for made in encoder.encode([one, one])] == [expected] * 2


def test_our_headers_win() -> None:
    """Headers of a row that bear the names of ours are left out: readers take the first or the last as they like."""
    made = pending(row(headers='{"id": "x", "ce_type": "y", "tenant": "a"}'), "/s").record

    assert [name for name, _ in made.headers].count("id") == 1
    assert made.header("tenant") == b"a"
    assert len(made.headers) == len(dict(made.headers))


def test_odd_rows() -> None:
    """Rows of other writers: no payload, properties of several lines, headers that are no object."""
    made = pending(row(payload=None, trace="#now\ntraceparent=00-x\nbaggage=1", headers="[1]"), "/s").record

    assert made.value is None
    assert made.header("traceparent") == b"00-x"
    assert made.header("headers") == b"[1]"
    assert pending(row(trace="baggage=1"), "/s").record.header("traceparent") is None


def test_options_are_checked() -> None:
    """Every wrong option is in one error."""
    with pytest.raises(ConfigError) as caught:
        RelayOptions(lease=0, min_idle=2.0, max_idle=1.0)

    assert len(caught.value.problems) == 2


def test_insert_for_a_callers_own_statement() -> None:
    """The INSERT numbers its parameters from where the caller wants, and takes a guard."""
    text = OutboxRows.insert(5, where="EXISTS (SELECT FROM k)")

    assert "$5::uuid[]" in text
    assert "$12::text[]" in text
    assert "WHERE EXISTS (SELECT FROM k)" in text
