"""The outbox table in memory, for tests of what appends and relays: same shards, leases, epochs and refusals."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from uuid import UUID
from zlib import crc32

from backstay.clock import SYSTEM, Clock
from backstay.ids import uuid7
from backstay.outbox.leases import ShardState, View
from backstay.outbox.store import SHARDS, Backlog, Row, Session


@dataclass(slots=True)
class _Shard:
    owner: UUID | None = None
    epoch: int = 0
    until: float = 0.0


class MemoryStore:
    """A `Store` in this object. `error`, if set, is raised by everything, as if the database were gone."""

    def __init__(self, *, clock: Clock = SYSTEM) -> None:
        self.error: Exception | None = None
        self.reads = 0
        self.deletes = 0
        self.refused: set[int] = set()  # shards of deletions that came with a stale epoch
        self._clock = clock
        self._seq = count(1)
        self._rows: dict[int, dict[int, Row]] = {shard: {} for shard in range(SHARDS)}
        self._shards = [_Shard() for _ in range(SHARDS)]
        self._members: dict[UUID, float] = {}
        self.parked: dict[tuple[str, str], str] = {}  # topic and key → reason
        self.parked_rows: dict[int, Row] = {}
        self.notes: dict[int, tuple[str, dict[int, list[int]]]] = {}  # group → mark and rows

    def add(self, topic: str, key: str, type: str, payload: str | None = "{}") -> Row:  # noqa: A002
        """Commit one event."""
        row = self.draw(topic, key, type, payload)
        self.commit(row)
        return row

    def draw(self, topic: str, key: str, type: str, payload: str | None = "{}") -> Row:  # noqa: A002
        """Return an event that has its place in the order, and isn't committed yet."""
        shard = crc32(key.encode()) % SHARDS
        time: datetime = self._clock.now()
        return Row(shard, next(self._seq), str(uuid7()), topic, key, type, payload, None, None, time)

    def commit(self, row: Row) -> None:
        """Let a drawn event be seen."""
        self._rows[row.shard][row.seq] = row

    @property
    def rows(self) -> list[Row]:
        """All that is in the table, in order."""
        return sorted((row for shard in self._rows.values() for row in shard.values()), key=lambda row: row.seq)

    @property
    def owners(self) -> dict[int, UUID | None]:
        """Shard → owner, of leases that run."""
        now = self._clock.monotonic()
        return {n: one.owner if one.until > now else None for n, one in enumerate(self._shards)}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Session]:
        """The store is its own session."""
        yield self

    async def renew(self, relay: UUID, name: str, lease: float) -> None:  # noqa: ARG002
        """Be a member, and prolong leases."""
        now = self._now()
        self._members[relay] = now + lease
        for one in self._shards:
            if one.owner == relay and one.until > now:
                one.until = now + lease

    async def view(self) -> View:
        """All shards and the number of relays."""
        now = self._now()
        states = (ShardState(n, one.owner, one.epoch, one.until > now) for n, one in enumerate(self._shards))
        return View(tuple(states), sum(until > now for until in self._members.values()), len(self.parked))

    async def acquire(self, relay: UUID, shards: Sequence[int], lease: float) -> dict[int, int]:
        """Take what is free or ours."""
        now, taken = self._now(), {}
        for shard in shards:
            one = self._shards[shard]
            if one.owner in (None, relay) or one.until <= now:
                one.owner, one.epoch, one.until = relay, one.epoch + 1, now + lease
                taken[shard] = one.epoch
        return taken

    async def release(self, relay: UUID, epochs: Mapping[int, int]) -> None:
        """Give shards back."""
        self._now()
        for shard, epoch in epochs.items():
            one = self._shards[shard]
            if (one.owner, one.epoch) == (relay, epoch):
                one.owner, one.until = None, 0.0

    async def leave(self, relay: UUID) -> None:
        """Be no member any more."""
        self._now()
        self._members.pop(relay, None)

    async def read(
        self,
        shards: Sequence[int],
        *,
        limit: int,
        per_shard: int,
        known: Sequence[int],
        topics: Sequence[str],
        keys: Sequence[tuple[str, bytes | None]],
        around: bool,
    ) -> list[Row]:
        """Return the next rows."""
        self._now()
        self.reads += 1
        skip, waiting, held = set(known), set(topics), set(keys)
        found: list[Row] = []
        for shard in shards:
            rows = (self._rows[shard][seq] for seq in sorted(self._rows[shard]) if seq not in skip)
            fit = [row for row in rows if row.topic not in waiting and (row.topic, str(row.key).encode()) not in held]
            fit = [row for row in fit if not (around and (row.topic, row.key) in self.parked)]
            found += fit[:per_shard]
        return found[:limit]

    async def delete(
        self, relay: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> frozenset[int]:
        """Delete what is still held."""
        self._now()
        self.deletes += 1
        held = {shard for shard, epoch in epochs.items() if self._holds(relay, shard, epoch)}
        self.refused.update(set(epochs) - held)
        for shard in held:
            for seq in rows.get(shard, ()):
                self._rows[shard].pop(seq, None)
        return frozenset(held)

    async def identity(self) -> str:
        """Return the table's name."""
        return f"memory-{id(self):x}"

    async def note(
        self, relay: UUID, group: int, mark: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> bool:
        """Replace a group's note."""
        self._now()
        held = all(self._holds(relay, shard, epoch) for shard, epoch in epochs.items())
        if held:
            self.notes[group] = (str(mark), {shard: list(seqs) for shard, seqs in rows.items()})
        return held

    async def settle(self, relay: UUID, group: int, epochs: Mapping[int, int], marks: Collection[str]) -> int | None:
        """Forget a group's note, and delete its rows if they are published."""
        self._now()
        if not all(self._holds(relay, shard, epoch) for shard, epoch in epochs.items()):
            return None
        mark, rows = self.notes.pop(group, ("", {}))
        seqs = [(shard, seq) for shard, some in rows.items() for seq in some] if mark in marks else []
        return sum(self._rows[shard].pop(seq, None) is not None for shard, seq in seqs)

    async def park(
        self, relay: UUID, shard: int, epoch: int, key: tuple[str, bytes | None], reason: str, known: Sequence[int]
    ) -> bool:
        """Park a key."""
        self._now()
        if not self._holds(relay, shard, epoch):
            return False
        self.parked.setdefault((key[0], (key[1] or b"").decode()), reason)
        await self.gather(relay, {shard: epoch}, known)
        return True

    async def gather(self, relay: UUID, epochs: Mapping[int, int], known: Sequence[int]) -> None:
        """Park what has come since."""
        self._now()
        for shard in (shard for shard, epoch in epochs.items() if self._holds(relay, shard, epoch)):
            for seq, row in list(self._rows[shard].items()):
                if (row.topic, row.key) in self.parked and seq not in known:
                    self.parked_rows[seq] = self._rows[shard].pop(seq)

    def resume(self, topic: str, key: str) -> None:
        """Let a parked key go on."""
        del self.parked[topic, key]
        for seq, row in list(self.parked_rows.items()):
            if (row.topic, row.key) == (topic, key):
                self.commit(self.parked_rows.pop(seq))

    async def backlog(self, shards: Sequence[int]) -> Backlog:
        """Return the number and age of waiting rows."""
        self._now()
        times = [row.timestamp for shard in shards for row in self._rows[shard].values()]
        return Backlog(len(times), (self._clock.now() - min(times)).total_seconds() if times else 0.0)

    def _holds(self, relay: UUID, shard: int, epoch: int) -> bool:
        return (self._shards[shard].owner, self._shards[shard].epoch) == (relay, epoch)

    def _now(self) -> float:
        if self.error is not None:
            raise self.error
        return self._clock.monotonic()
