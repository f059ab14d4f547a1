"""Messages of `pgoutput`, byte for byte."""

from collections.abc import Sequence
from datetime import UTC, datetime
from struct import pack

import pytest

from backstay.outbox import OutboxError
from backstay.outbox.wal.pgoutput import Begin, Commit, Decoder, Insert, Mark
from backstay.outbox.wal.shards import shard_of

COLUMNS = ("id", "aggregatetype", "aggregateid", "type", "payload", "seq", "headers", "tracingspancontext", "timestamp")
VALUES = ("01-02", "orders", "k", "order.created", '{"a": "é"}', "7", None, "traceparent=x", "2026-11-22 18:00:00.5+00")
TIME = datetime(2026, 11, 22, 18, 0, 0, 500_000, UTC)


OWN = (
    *("id", "aggregatetype", "aggregateid", "type", "payload", "seq", "shard", "aggregateversion", "headers"),
    *("tracingspancontext", "timestamp", "available_at"),
)


def relation(columns: Sequence[str], *, oid: int = 9, table: str = "outbox", kind: int = 25) -> bytes:
    parts = b"".join(b"\0" + name.encode() + b"\0" + pack(">Ii", kind, -1) for name in columns)
    return b"R" + pack(">I", oid) + b"public\0" + table.encode() + b"\0d" + pack(">H", len(columns)) + parts


def insert(values: Sequence[str | None], *, oid: int = 9) -> bytes:
    parts = (b"n" if value is None else b"t" + pack(">I", len(value.encode())) + value.encode() for value in values)
    return b"I" + pack(">I", oid) + b"N" + pack(">H", len(values)) + b"".join(parts)


def test_insert() -> None:
    """A row comes out with its shard, text decoded, the payload as it was sent, and when it is due."""
    decoder = Decoder()
    assert decoder.decode(relation((*COLUMNS, "shard", "available_at"))) is None
    found = decoder.decode(b"header" + insert((*VALUES, "63", None)), 6)
    later = decoder.decode(insert((*VALUES, "63", "2026-11-22 18:00:00.5+00")))

    payload = '{"a": "é"}'.encode()
    assert isinstance(found, Insert)
    assert isinstance(later, Insert)
    assert found.row == (63, 7, b"01-02", "orders", b"k", "order.created", payload, None, "traceparent=x", TIME)
    assert (found.due, later.due) == (None, TIME)


@pytest.mark.parametrize("payload", [VALUES[4], None, ""])
@pytest.mark.parametrize("version", ["12", None])
@pytest.mark.parametrize("headers", ['{"a": "1"}', None])
@pytest.mark.parametrize("trace", ["traceparent=x", None])
@pytest.mark.parametrize("due", ["2026-11-22 18:00:00.5+00", None])
def test_our_own_columns(*, payload: str, version: str, headers: str, trace: str, due: str) -> None:
    """The short cut for the table of our migration reads what the general way reads."""
    ident = "01a20531-bff3-71ee-8df3-da49afa436ca"
    values = (ident, "orders", "k", "order.created", payload, "70", "63", version, headers, trace, VALUES[8], due)
    short, general = Decoder(), Decoder()
    short.decode(relation(OWN, kind=2950))
    general.decode(relation(OWN, kind=25))

    found = short.decode(b"header" + insert(values), 6)
    assert isinstance(found, Insert)
    assert found == general.decode(b"header" + insert(values), 6)
    assert found.row[:2] == (63, 70)
    assert (found.row[6], found.due) == (None if payload is None else payload.encode(), TIME if due else None)


def test_servers_that_keep_generated_columns_to_themselves() -> None:
    """Without the column the shard is computed as the database does."""
    decoder = Decoder()
    decoder.decode(relation(COLUMNS))
    found = decoder.decode(insert(VALUES))

    assert isinstance(found, Insert)
    assert (found.row[0], found.due) == (shard_of("k"), None)


def test_transactions_and_marks() -> None:
    """Where a transaction begins and ends, and what was said inside it."""
    decoder = Decoder()
    assert decoder.decode(b"B" + pack(">qqI", 100, 0, 4_000_000_000)) == Begin(4_000_000_000)
    assert decoder.decode(b"C" + pack(">bqqq", 0, 100, 148, 0)) == Commit(148)
    assert decoder.decode(b"M" + pack(">bq", 1, 120) + b"backstay.outbox.keep\0" + pack(">I", 0)) == Mark(
        "backstay.outbox.keep"
    )
    assert decoder.decode(b"O" + pack(">q", 1) + b"origin\0") is None


def test_other_tables_are_left_out() -> None:
    """A publication may hold more than the outbox."""
    decoder = Decoder()
    decoder.decode(relation(("n",), oid=10, table="orders"))
    assert decoder.decode(insert(("1",), oid=10)) is None


def test_missing_columns_are_named() -> None:
    """A publication with a column list that leaves something out is an error that says what."""
    with pytest.raises(OutboxError, match="leaves out columns of outbox: payload, timestamp"):
        Decoder().decode(relation([name for name in COLUMNS if name not in ("payload", "timestamp")]))
