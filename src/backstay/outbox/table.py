"""An outbox table of another product: Debezium's default shape, Quarkus', or any with the same meaning.

The relay takes Debezium's place: the same topics, keys, values and headers. It needs two columns more than Debezium,
`seq` and `shard`; `OutboxTable.migration` adds them, and writers needn't know.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import SimpleNamespace

from backstay.db import Queries
from backstay.errors import ConfigError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]{0,62}")
_PLACE = re.compile(r"\$\{routedByValue\}|\{\}")
_RESERVED = frozenset({"id", "traceparent"})
_TIMES = {
    "timestamp with time zone": "o.{0}",
    "timestamp without time zone": "o.{0} AT TIME ZONE 'UTC'",
    "bigint": "to_timestamp(o.{0} / 1000.0)",
}
PAYLOADS = ("json", "jsonb", "text", "character varying")

templates = Queries.load(Path(__file__).parent / "table.sql")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxTable:
    """Names of a table and its columns, and what becomes of its rows. The defaults are Debezium's.

    table: its name, with or without a schema; route: the topic, `{}` (or `${routedByValue}`) stands for the column
    `topic`; headers: column → name of a header with its text, as `table.fields.additional.placement` has it; timestamp,
    trace: columns that not every table has; cloudevents: send the CloudEvents headers of our own table as well.
    """

    table: str = "outboxevent"
    id: str = "id"
    topic: str = "aggregatetype"
    key: str = "aggregateid"
    type: str = "type"
    payload: str = "payload"
    timestamp: str | None = None
    trace: str | None = None
    route: str = "outbox.event.{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    cloudevents: bool = False
    seq: str = "seq"
    shard: str = "shard"

    def __post_init__(self) -> None:
        problems = list(self._bad_names())
        if len(_PLACE.findall(self.route)) != 1:
            problems.append(f"outbox table route={self.route!r}: must hold {{}} once, such as outbox.event.{{}}")
        problems += [
            f"outbox table headers: {name!r} is empty or one that the relay itself sets"
            for name in self.headers.values()
            if not name or name in _RESERVED or (self.cloudevents and name.startswith("ce_"))
        ]
        if len(set(self.headers.values())) < len(self.headers):
            problems.append("outbox table headers: two columns have the same header")
        if problems:
            raise ConfigError(problems)

    @property
    def affixes(self) -> tuple[str, str]:
        """The text before and behind the column's value in a topic."""
        before, after = _PLACE.split(self.route)
        return before, after

    @property
    def columns(self) -> dict[str, str]:
        """Meaning → column, of all columns that the table must have."""
        names = ("id", "topic", "key", "type", "payload", "timestamp", "trace", "seq", "shard")
        own = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return own | {f"header {header}": column for column, header in self.headers.items()}

    @property
    def migration(self) -> str:
        """The statements that add what the relay needs. They lock and rewrite the table: run them while it is small."""
        return self._filled(templates.migration, {})

    def check(self, found: Mapping[str, str]) -> None:
        """ConfigError names what the table (column → type, as in the database) lacks, and what to do."""
        if not found:
            raise ConfigError(f"outbox table {self.table!r}: there is no such table")
        lost = [
            f"outbox table {self.table!r} has no column {name!r} ({what})"
            for what, name in self.columns.items()
            if name not in found
        ]
        if {self.seq, self.shard} - set(found):
            lost.append(f"add what the relay needs:\n{self.migration}")
        kind = found.get(self.payload, "text")
        if kind not in PAYLOADS:
            lost.append(f"outbox table {self.table!r}: payload is {kind}, must be one of {', '.join(PAYLOADS)}")
        if self.timestamp is not None and found.get(self.timestamp, "bigint") not in _TIMES:
            lost.append(f"outbox table {self.table!r}: {self.timestamp} must be one of {', '.join(_TIMES)}")
        if lost:
            raise ConfigError(lost)

    def statements(self, found: Mapping[str, str]) -> SimpleNamespace:
        """Return the relay's SQL for this table, whose columns have these types."""
        names = ("read", "delete", "park", "settle", "backlog", "topics", "parked_keys", "skip", "edit", "around")
        texts = {name: self._filled(getattr(templates, name), found) for name in names}
        return SimpleNamespace(**texts, read_around=texts["read"].replace("-- around", texts["around"]))

    def _filled(self, template: str, found: Mapping[str, str]) -> str:
        prefix, suffix = self.affixes
        pairs = ", ".join(f"{_text(header)}, o.{_quoted(column)}::text" for column, header in self.headers.items())
        time = self.timestamp and _TIMES.get(found.get(self.timestamp, ""), "NULL").format(_quoted(self.timestamp))
        return template.format(
            **{
                name: _quoted(getattr(self, name)) for name in ("id", "topic", "key", "type", "payload", "seq", "shard")
            },
            table=".".join(map(_quoted, self.table.split("."))),
            prefix=_text(prefix),
            suffix=_text(suffix),
            headers=f"json_strip_nulls(json_build_object({pairs}))::text" if pairs else "NULL::text",
            trace=f"o.{_quoted(self.trace)}::text" if self.trace else "NULL::text",
            timestamp=time or "NULL::timestamptz",
            payload_type=found.get(self.payload, "text"),
        )

    def _bad_names(self) -> list[str]:
        names = [(one.name, getattr(self, one.name)) for one in fields(self)]
        known = [(name, value) for name, value in names if name not in ("table", "route", "headers", "cloudevents")]
        known += [("headers", column) for column in self.headers]
        known += [("table", part) for part in self.table.split(".")[-2:]]
        if self.table.count(".") > 1:
            known.append(("table", self.table))
        return [
            f"outbox table {name}={value!r}: must be a plain SQL name"
            for name, value in known
            if value is not None and not _NAME.fullmatch(value)
        ]


DEBEZIUM = OutboxTable()
"""Debezium's default: five columns."""

QUARKUS = OutboxTable(timestamp="timestamp", trace="tracingspancontext")
"""What the Quarkus extension `debezium-outbox` makes of its entity OutboxEvent."""


def _quoted(name: str) -> str:
    return f'"{name}"'


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'::text"
