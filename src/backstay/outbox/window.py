"""Rows of a relay: in flight, and acknowledged but not deleted. Pure; times are passed in.

Order by construction: a shard is in at most one publish at a time, and all events of a key are in one shard. So when
a record fails, none of its key's successors is on its way in another publish; they are still in the table, and are
read again behind it. Nothing is lost, because a row leaves the table only after its acknowledgement, and a row that
is neither in flight nor acknowledged is found by the next read.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from backstay.messaging import PublishError
from backstay.outbox.waiting import Choice, Pending, Poison, Waits

MAX_KNOWN = 1000  # published rows of a shard that are not yet deleted; with more of them it isn't read


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Rows in one publish, by shard too, and the epoch under which each shard was held."""

    choice: Choice
    seqs: Mapping[int, Sequence[int]]
    epochs: Mapping[int, int]
    topics: frozenset[str]
    size: int

    @property
    def rows(self) -> Sequence[Pending]:
        """The rows in their order."""
        return self.choice.rows


@dataclass(slots=True)
class Outcome:
    """The outcome of a publish: counts of rows, and the records that were refused for good."""

    acknowledged: int = 0
    failed: int = 0
    refused: int = 0
    poison: list[Poison] = field(default_factory=list)


@dataclass(slots=True)
class _Acknowledged:
    epoch: int
    seqs: set[int] = field(default_factory=set)


class Window:
    """Bookkeeping of one relay, bounded by `max_rows` and `max_bytes`."""

    def __init__(self, *, max_rows: int, max_bytes: int) -> None:
        self.waits = Waits()
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._busy: dict[int, Batch] = {}
        self._flights: set[Batch] = set()
        self._rows_in_flight = self._bytes_in_flight = 0
        self._acknowledged: dict[int, _Acknowledged] = {}
        self._acknowledged_rows = 0
        self._oldest_acknowledged: float | None = None
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
        """True if reading must pause."""
        rows = self._rows_in_flight + self._acknowledged_rows
        return rows >= self._max_rows or self._bytes_in_flight >= self._max_bytes

    def is_busy(self, shard: int) -> bool:
        """Return whether anything of the shard is in flight or not yet deleted."""
        return shard in self._busy or shard in self._acknowledged

    def readable(self, held: Iterable[int], now: float, *, backlog: bool = False) -> list[int]:
        """Return the held shards that may be read now, beginning behind the one where the last batch ended.

        With a `backlog` the shards without rows to be deleted come alone, if there are any: leaving out what is known
        costs the database more the more of it there is.
        """
        if self.waits.everything(now):
            return []
        acked = self._acknowledged
        free = sorted(s for s in held if s not in self._busy and (s not in acked or len(acked[s].seqs) < MAX_KNOWN))
        if backlog:
            free = [shard for shard in free if shard not in acked] or free
        suspect = self.waits.first_shard()
        last = self._last_shard if suspect is None else suspect - 1
        return [s for s in free if s > last] + [s for s in free if s <= last]

    def known(self, shards: Iterable[int]) -> list[int]:
        """Rows of these shards that are still in the table although they are published."""
        return [seq for shard in shards if (acked := self._acknowledged.get(shard)) for seq in acked.seqs]

    def in_hand(self, shards: Collection[int]) -> list[int]:
        """Rows of these shards that are published, or on their way."""
        flying = [seq for shard in shards if (batch := self._busy.get(shard)) for seq in batch.seqs[shard]]
        return self.known(shards) + flying

    def waiting_topics(self, now: float) -> list[str]:
        """Topics that must not be read now."""
        return self.waits.topics_now(now, [batch.topics for batch in self._flights])

    def waiting_keys(self) -> list[tuple[str, bytes | None]]:
        """Topic and key of what is about to be parked."""
        return list(self.waits.poison)

    def take(self, rows: Sequence[Pending], epochs: Mapping[int, int]) -> Batch | None:
        """Put rows in flight: those of shards that are held and not busy; None when there are none."""
        seqs: dict[int, list[int]] = {}
        for row in rows:
            seqs.setdefault(row.shard, []).append(row.seq)
        if not all(shard in epochs and shard not in self._busy for shard in seqs):
            rows = [row for row in rows if row.shard in epochs and row.shard not in self._busy]
        choice = Choice(rows)
        if self.waits:
            choice = self.waits.choose(rows, [batch.topics for batch in self._flights])
        if not choice.rows:
            return None
        if choice.rows is not rows or len(rows) != sum(map(len, seqs.values())):
            seqs = {}
            for row in choice.rows:
                seqs.setdefault(row.shard, []).append(row.seq)
        return self._fly(choice, seqs, epochs)

    def settle(
        self, batch: Batch, results: Sequence[PublishError | None], epochs: Mapping[int, int], now: float
    ) -> Outcome:
        """A publish has ended. What was acknowledged under an epoch that is over is left to the new owner."""
        self._land(batch)
        if not self.waits and not any(results):
            self.waits.producer = None
            for shard, seqs in batch.seqs.items():
                self._acknowledge(shard, seqs, batch.epochs[shard], epochs, now)
            return Outcome(acknowledged=len(batch.rows))
        return self._settle_each(batch, results, epochs, now)

    def deletions_due(self, now: float, gather: float, at_once: int) -> float:
        """Seconds until acknowledged rows should be deleted: they gather, unless there are `at_once` or more."""
        if self._oldest_acknowledged is None:
            return gather
        if self._acknowledged_rows >= at_once:
            return 0.0
        return max(0.0, self._oldest_acknowledged + gather - now)

    def deletions(self) -> tuple[dict[int, list[int]], dict[int, int]]:
        """All acknowledged rows, shard → seqs, and the epochs of their shards. They stay known until `deleted`."""
        rows = {shard: list(acked.seqs) for shard, acked in self._acknowledged.items()}
        self._oldest_acknowledged = None
        return rows, {shard: acked.epoch for shard, acked in self._acknowledged.items()}

    def deleted(self, rows: Mapping[int, Collection[int]]) -> None:
        """These rows are gone from the table."""
        for shard, seqs in rows.items():
            acked = self._acknowledged.get(shard)
            if acked is None:
                continue
            before = len(acked.seqs)
            acked.seqs.difference_update(seqs)
            self._acknowledged_rows -= before - len(acked.seqs)
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

    def _fly(self, choice: Choice, seqs: Mapping[int, Sequence[int]], epochs: Mapping[int, int]) -> Batch:
        size = sum(row.size for row in choice.rows)
        topics = frozenset(row.record.topic for row in choice.rows)
        batch = Batch(choice, seqs, {shard: epochs[shard] for shard in seqs}, topics, size)
        self.waits.sent(choice)
        self._flights.add(batch)
        self._busy.update(dict.fromkeys(seqs, batch))
        self._rows_in_flight += len(choice.rows)
        self._bytes_in_flight += size
        self._last_shard = choice.rows[-1].shard
        return batch

    def _land(self, batch: Batch) -> None:
        self.waits.ended(batch.choice)
        self._flights.discard(batch)
        for shard in batch.seqs:
            del self._busy[shard]
        self._rows_in_flight -= len(batch.rows)
        self._bytes_in_flight -= batch.size

    def _settle_each(
        self, batch: Batch, results: Sequence[PublishError | None], epochs: Mapping[int, int], now: float
    ) -> Outcome:
        outcome, waits = Outcome(), self.waits
        for row, error in zip(batch.rows, results, strict=True):
            if error is None:
                outcome.acknowledged += 1
                waits.acknowledged(row)
                self._acknowledge(row.shard, (row.seq,), batch.epochs[row.shard], epochs, now)
            elif error.kind == "record":
                outcome.refused += 1
                poison = waits.refused(row, error, now, alone=row.record.topic in batch.choice.alone)
                outcome.poison += [poison] if poison else []
            else:
                outcome.failed += 1
                waits.failed(row, error, now)
        return outcome

    def _acknowledge(self, shard: int, seqs: Sequence[int], epoch: int, epochs: Mapping[int, int], now: float) -> None:
        if epochs.get(shard) != epoch:
            return
        acked = self._acknowledged.setdefault(shard, _Acknowledged(epoch))
        acked.seqs.update(seqs)
        self._acknowledged_rows += len(seqs)
        if self._oldest_acknowledged is None:
            self._oldest_acknowledged = now
