"""The wire form, byte for byte, and what a reader needs of it."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from backstay.messaging import Envelope, Record, Unreadable

ID = UUID("0192f0c0-0000-7000-8000-000000000001")
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
AT = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)

GOLDEN = (
    ("id", b"0192f0c0-0000-7000-8000-000000000001"),
    ("ce_specversion", b"1.0"),
    ("ce_id", b"0192f0c0-0000-7000-8000-000000000001"),
    ("ce_source", b"/service/orders"),
    ("ce_type", b"order.confirmed"),
    ("ce_subject", b"42"),
    ("ce_partitionkey", b"42"),
    ("content-type", b"application/json"),
    ("ce_time", b"2026-03-04T05:06:07.000089Z"),
    ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
)


def written() -> Record:
    return Envelope.record_for(
        topic="orders",
        key="42",
        id=ID,
        type="order.confirmed",
        source="/service/orders",
        data=b'{"order_id":42}',
        time=AT,
        traceparent=TRACE,
    )


def with_headers(*headers: tuple[str, bytes]) -> Record:
    return Record("orders", b"42", b"{}", headers)


def test_golden_record() -> None:
    """An event's record is exactly CloudEvents' binary mode with Debezium's id and the trace context."""
    assert Record("orders", b"42", b'{"order_id":42}', GOLDEN) == written()


def test_optional_headers_are_left_out() -> None:
    """What is not known is not written."""
    record = Envelope.record_for(topic="t", key="k", id=ID, type="a.b", source="/s", data=None)

    assert {"ce_time", "traceparent"}.isdisjoint(dict(record.headers))
    assert record.value is None


def test_extra_headers_follow() -> None:
    """Headers of the caller come after ours."""
    record = Envelope.record_for(topic="t", key="k", id=ID, type="a.b", source="/s", data=b"", extra=(("x", b"1"),))

    assert record.headers[-1] == ("x", b"1")


def test_read_returns_what_was_written() -> None:
    """Reading a written record gives every attribute back."""
    envelope = Envelope.read(written())

    assert Envelope(ID, "order.confirmed", "/service/orders", "42", AT, TRACE, written()) == envelope


def test_reader_needs_id_and_type_only() -> None:
    """A record of Debezium's outbox router, with `id` and a type header, is an event."""
    envelope = Envelope.read(with_headers(("id", str(ID).encode()), ("ce_type", b"order.confirmed")))

    assert (envelope.id, envelope.type) == (ID, "order.confirmed")
    assert envelope.source is envelope.subject is envelope.time is envelope.traceparent is None


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ((("ce_type", b"a.b"),), "'id' is missing"),
        ((("id", str(ID).encode()),), "'ce_type' is missing"),
        ((("id", b"17"), ("ce_type", b"a.b")), "'id' is no UUID: '17'"),
        ((("id", str(ID).encode()), ("ce_type", b"\xff")), "'ce_type' is not UTF-8"),
        ((("id", str(ID).encode()), ("ce_type", b"")), "'ce_type' is missing"),
    ],
)
def test_unreadable_records_say_why(headers: tuple[tuple[str, bytes], ...], problem: str) -> None:
    """The reason names the header and its value."""
    with pytest.raises(Unreadable, match=problem):
        Envelope.read(with_headers(*headers))


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"2026-03-04T06:06:07.000089+01:00", AT),
        (b"2026-03-04T05:06:07.000089", AT),
        (b"yesterday", None),
    ],
)
def test_times_are_read_leniently(raw: bytes, expected: datetime | None) -> None:
    """Any ISO time is understood; an odd one never costs the event."""
    envelope = Envelope.read(with_headers(("id", str(ID).encode()), ("ce_type", b"a.b"), ("ce_time", raw)))

    assert expected == envelope.time
