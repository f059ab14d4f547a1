"""What a relay has in its hands: read, in flight, acknowledged, waiting. Pure; times are passed in.

Order by construction: a shard is in at most one publish at a time, and all events of a key are in one shard. So when
a record fails, none of its key's successors is on its way in another publish; they are still in the table, and are
read again behind it. Nothing is lost, because a row leaves the table only after its acknowledgement, and a row that
is neither in flight nor acknowledged is found by the next read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backstay.messaging import PublishError, Record

TOPIC_WAIT = (0.05, 5.0)  # seconds until a topic whose publish failed is tried again: at first, at most
KEY_WAIT = 30.0  # seconds until a record that the broker refused is offered again
MAX_WAITING_KEYS = 1000  # more refused keys than that, and their topics wait as a whole


@dataclass(frozen=True, slots=True)
class Pending:
    """One row on its way; `size` is roughly its bytes in memory."""

    shard: int
    seq: int
    record: Record
    size: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows in one publish, the epoch under which each shard was held, and the topics and keys it probes."""

    rows: Sequence[Pending]
    epochs: Mapping[int, int]
    size: int
    probes: frozenset[object] = frozenset()


@dataclass(frozen=True, slots=True)
class Waiting:
    """A topic or key that waits, since when it fails, and why."""

    until: float
    failures: int
    reason: str


@dataclass(slots=True)
class Outcome:
    """How a publish ended: counts of rows."""

    acknowledged: int = 0
    failed: int = 0
    refused: int = 0


@dataclass(slots=True)
class _Acknowledged:
    epoch: int
    seqs: set[int] = field(default_factory=set)


class Window:
    """Bookkeeping of one relay, bounded by `max_rows` and `max_bytes`."""

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._busy: set[int] = set()
        self._rows_in_flight = self._bytes_in_flight = 0
        self._acknowledged: dict[int, _Acknowledged] = {}
        self._acknowledged_rows = 0
        self._oldest_acknowledged: float | None = None
        self._topics: dict[str, Waiting] = {}
        self._keys: dict[tuple[str, bytes | None], Waiting] = {}
        self._probing: set[object] = set()
        self._last_shard = -1

    @property
    def in_flight(self) -> int:
        """Rows that are being published."""
        return self._rows_in_flight

    @property
    def acknowledged(self) -> int:
        """Rows that are published and not yet deleted."""
        return self._acknowledged_rows

    @property
    def full(self) -> bool:
        """Whether reading must pause."""
        rows = self._rows_in_flight + self._acknowledged_rows
        return rows >= self._max_rows or self._bytes_in_flight >= self._max_bytes

    def is_busy(self, shard: int) -> bool:
        """Whether anything of the shard is in flight or not yet deleted."""
        return shard in self._busy or shard in self._acknowledged

    def readable(self, held: Iterable[int]) -> list[int]:
        """Which of the held shards may be read now, beginning behind the one where the last batch ended."""
        free = sorted(shard for shard in held if shard not in self._busy)
        return [s for s in free if s > self._last_shard] + [s for s in free if s <= self._last_shard]

    def known(self, shards: Iterable[int]) -> list[int]:
        """Rows of these shards that are still in the table although they are published."""
        return [seq for shard in shards if (acked := self._acknowledged.get(shard)) for seq in acked.seqs]

    def waiting_topics(self, now: float) -> list[str]:
        """Topics that must not be read now: it isn't time, or a probe is on its way."""
        return [topic for topic, one in self._topics.items() if now < one.until or topic in self._probing]

    def waiting_keys(self, now: float) -> list[tuple[str, bytes | None]]:
        """Topic and key of what must not be read now: it isn't time, or a probe is on its way."""
        return [key for key, one in self._keys.items() if now < one.until or key in self._probing]

    @property
    def topics(self) -> Mapping[str, Waiting]:
        """Every topic whose last publish failed."""
        return self._topics

    @property
    def keys(self) -> Mapping[tuple[str, bytes | None], Waiting]:
        """Every key whose first record the broker refuses."""
        return self._keys

    def next_retry(self, now: float) -> float | None:
        """Seconds until something that waits may be tried again."""
        due = [w.until - now for w in (*self._topics.values(), *self._keys.values()) if w.until > now]
        return min(due, default=None)

    def take(self, rows: Sequence[Pending], epochs: Mapping[int, int]) -> Batch | None:
        """Put rows in flight: those of shards that are held and not busy; None when there are none.

        A topic or key that failed before is first probed with a single row.
        """
        taken = [row for row in rows if row.shard in epochs and row.shard not in self._busy]
        probes: frozenset[object] = frozenset()
        if self._topics or self._keys:
            taken, probes = self._probes(taken)
        if not taken:
            return None
        size = sum(row.size for row in taken)
        batch = Batch(taken, {row.shard: epochs[row.shard] for row in taken}, size, probes)
        self._probing |= probes
        self._busy.update(batch.epochs)
        self._rows_in_flight += len(taken)
        self._bytes_in_flight += batch.size
        self._last_shard = taken[-1].shard
        return batch

    def settle(
        self, batch: Batch, results: Sequence[PublishError | None], epochs: Mapping[int, int], now: float
    ) -> Outcome:
        """A publish has ended. What was acknowledged under an epoch that is over is left to the new owner."""
        self._rows_in_flight -= len(batch.rows)
        self._bytes_in_flight -= batch.size
        self._busy.difference_update(batch.epochs)
        self._probing -= batch.probes
        outcome = Outcome()
        failed_topics: set[str] = set()
        for row, error in zip(batch.rows, results, strict=True):
            if error is None:
                outcome.acknowledged += 1
                self._acknowledge(row, batch.epochs[row.shard], epochs, now)
            elif error.kind == "record":
                outcome.refused += 1
                self._refuse(row.record, error, now)
            else:
                outcome.failed += 1
                held_back = (row.record.topic, row.record.key) in self._keys
                if not held_back and row.record.topic not in failed_topics:
                    failed_topics.add(row.record.topic)
                    self._wait(row.record.topic, error, now)
        return outcome

    def deletions_due(self, now: float, gather: float, at_once: int) -> float:
        """Seconds until acknowledged rows should be deleted: they gather, unless there are `at_once` or more."""
        if self._oldest_acknowledged is None:
            return gather
        if self._acknowledged_rows >= at_once:
            return 0.0
        return max(0.0, self._oldest_acknowledged + gather - now)

    def deletions(self) -> tuple[list[tuple[int, int]], dict[int, int]]:
        """All acknowledged rows as (shard, seq), and the epochs of their shards. They stay known until `deleted`."""
        rows = [(shard, seq) for shard, acked in self._acknowledged.items() for seq in acked.seqs]
        self._oldest_acknowledged = None
        return rows, {shard: acked.epoch for shard, acked in self._acknowledged.items()}

    def deleted(self, rows: Iterable[tuple[int, int]]) -> None:
        """These rows are gone from the table."""
        for shard, seq in rows:
            acked = self._acknowledged.get(shard)
            if acked is None or seq not in acked.seqs:
                continue
            acked.seqs.discard(seq)
            self._acknowledged_rows -= 1
            if not acked.seqs:
                del self._acknowledged[shard]

    def delete_failed(self, now: float) -> None:
        """The deletion didn't work; what is acknowledged is due again after another while."""
        if self._acknowledged:
            self._oldest_acknowledged = now

    def drop(self, shard: int) -> None:
        """The shard is lost: its acknowledged rows are left to the new owner. What is in flight ends by itself."""
        acked = self._acknowledged.pop(shard, None)
        self._acknowledged_rows -= len(acked.seqs) if acked else 0

    def _probes(self, rows: Sequence[Pending]) -> tuple[list[Pending], frozenset[object]]:
        chosen: list[Pending] = []
        probed: set[object] = set()
        for row in rows:
            topic, key = row.record.topic, (row.record.topic, row.record.key)
            mark: object = topic if topic in self._topics else key if key in self._keys else None
            if mark is None:
                chosen.append(row)
            elif mark not in probed and mark not in self._probing:
                chosen.append(row)
                probed.add(mark)
        return chosen, frozenset(probed)

    def _acknowledge(self, row: Pending, epoch: int, epochs: Mapping[int, int], now: float) -> None:
        record = row.record
        if self._topics:
            self._topics.pop(record.topic, None)
        if self._keys:
            self._keys.pop((record.topic, record.key), None)
        if epochs.get(row.shard) != epoch:
            return
        self._acknowledged.setdefault(row.shard, _Acknowledged(epoch)).seqs.add(row.seq)
        self._acknowledged_rows += 1
        if self._oldest_acknowledged is None:
            self._oldest_acknowledged = now

    def _refuse(self, record: Record, error: PublishError, now: float) -> None:
        key = (record.topic, record.key)
        if key not in self._keys and len(self._keys) >= MAX_WAITING_KEYS:
            self._wait(record.topic, error, now)
            return
        failures = self._keys[key].failures + 1 if key in self._keys else 1
        self._keys[key] = Waiting(now + KEY_WAIT, failures, str(error))

    def _wait(self, topic: str, error: PublishError, now: float) -> None:
        before = self._topics.get(topic)
        failures = before.failures + 1 if before else 1
        pause = min(TOPIC_WAIT[0] * 2 ** min(failures - 1, 10), TOPIC_WAIT[1])
        self._topics[topic] = Waiting(now + pause, failures, str(error))
