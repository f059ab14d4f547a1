"""A relay's settings and statistics."""

from dataclasses import dataclass, field, fields

from backstay.errors import ConfigError
from backstay.metrics import Count
from backstay.telemetry.histogram import Histogram, HistogramStatistics


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayOptions:
    """Options of a relay. All must be positive; times are seconds."""

    lease: float = 10.0
    """A relay that died is replaced after this long."""
    batch_rows: int = 2000
    """Rows in one read, and in one publish."""
    window_rows: int = 10_000
    """Rows in flight or not yet deleted, at most."""
    window_bytes: int = 32 * 1024 * 1024
    """Bytes in flight, at most; one read may go beyond it."""
    publishes: int = 4
    """Publishes at a time, each of other shards."""
    min_idle: float = 0.0025
    """Between two reads while little comes."""
    max_idle: float = 1.0
    """Between two reads when nothing has come for a while; a commit in this process wakes the relay at once."""
    gather: float = 0.05
    """Acknowledged rows gather this long before they are deleted, unless `delete_rows` have come together."""
    delete_rows: int = 1000
    """So many acknowledged rows are deleted at once."""
    drain: float = 5.0
    """When stopping, what is in flight gets this long."""
    strict: bool = False
    """Publish by transactions of the broker; every relay of the table must do so, or none."""

    def __post_init__(self) -> None:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        problems = [
            f"relay option {name}={value!r}: must be above 0"
            for name, value in values.items()
            if name != "strict" and value <= 0
        ]
        if self.min_idle > self.max_idle:
            problems.append(f"relay option min_idle={self.min_idle:g}: must not be above max_idle={self.max_idle:g}")
        if problems:
            raise ConfigError(problems)

    @property
    def per_shard(self) -> int:
        """Rows of one shard in one read, so that one full shard doesn't hold up the others."""
        return max(1, self.batch_rows // 4)


@dataclass(frozen=True, slots=True)
class RelayStatistics:
    """A relay's state and its counts since the start. Rows unless noted otherwise."""

    pending: int
    """In the table, in the shards of this relay; counted up to 10,001; a few seconds old."""
    oldest_age: float
    """Seconds; of the oldest of them."""
    in_flight: int
    published: Count
    failed: Count
    """Publishes of a row that failed and are repeated."""
    refused: Count
    """Publishes of a row that the broker will never take as it is."""
    shards_owned: int
    shards_streamed: int
    """Of these, read from the write-ahead log; a few seconds old."""
    lease_lost: Count
    epoch_conflicts: Count
    waiting_topics: int
    suspected_keys: int
    """Keys of which a record was refused together with others; each is offered alone."""
    parked_keys: int
    """In the whole table: what waits for an operator."""
    parked: Count
    """Keys that this relay has parked."""
    reads: Count
    """SQL statements."""
    deletes: Count
    """SQL statements."""
    restarts: Count
    transactions: Count
    """Strict mode: committed by the broker."""
    aborted: Count
    """Strict mode: transactions taken back, their rows are repeated."""
    fenced: Count
    """Strict mode: transactions refused because another relay has taken the shards over."""
    recovered: Count
    """Strict mode: rows found published when shards were taken over, and not published again."""
    slot_retained_bytes: int
    """WAL that the server keeps for the relay's replication slot; 0 without one."""
    commit_to_ack: HistogramStatistics
    """Seconds from the start of an event's transaction (the database's clock) to its acknowledgement (this one's)."""
    problem: str | None
    """Why events may not flow; None when all is well."""


@dataclass(slots=True)
class Counters:
    """A relay's counters; plain integers, so that counting costs nothing."""

    published: int = 0
    failed: int = 0
    refused: int = 0
    parked: int = 0
    lease_lost: int = 0
    epoch_conflicts: int = 0
    reads: int = 0
    deletes: int = 0
    restarts: int = 0
    transactions: int = 0
    aborted: int = 0
    fenced: int = 0
    recovered: int = 0
    slot_retained_bytes: int = 0
    commit_to_ack: Histogram = field(default_factory=Histogram)
