"""Assignment of shards to relays: pure bookkeeping and decisions; the database arbitrates.

A lease is trusted until a moment of the local monotonic clock that was taken *before* the database was asked, minus
a margin. So however long this process was stopped, it knows by itself that its lease may be over, before it sends.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

MARGIN = 0.1  # share of a lease that isn't used, for clocks that don't run alike


@dataclass(frozen=True, slots=True)
class ShardState:
    """A shard as the database has it; `live` is whether its lease still runs."""

    shard: int
    owner: UUID | None
    epoch: int
    live: bool


@dataclass(frozen=True, slots=True)
class View:
    """The state read at a renewal: every shard, the number of relays, and the number of parked keys.

    `share`: shards due to this relay; None: as many as to every other.
    """

    shards: tuple[ShardState, ...]
    members: int
    parked: int = 0
    share: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Shards to take and to release. `eager`: another relay is about to release, poll again soon."""

    acquire: tuple[int, ...]
    release: tuple[int, ...]
    eager: bool


def decide(me: UUID, held: Iterable[int], view: View) -> Decision:
    """Move towards equal shares: a relay above its share releases, one below takes what is free.

    `held` are the shards that this relay works on. One that the database calls ours but that isn't held (from before
    a restart) is free for us, under a new epoch.
    """
    held = sorted(held)
    before = {one.shard for one in view.shards if one.owner == me}
    share = -(-len(view.shards) // max(1, view.members)) if view.share is None else view.share
    free = [one.shard for one in view.shards if one.shard not in held and _is_free(one, me)]
    free.sort(key=lambda shard: shard not in before)
    owners: dict[UUID, int] = {}
    for one in view.shards:
        if one.live and one.owner is not None and one.owner != me:
            owners[one.owner] = owners.get(one.owner, 0) + 1
    wanted = max(0, share - len(held))
    acquire = tuple(free[:wanted])
    eager = wanted > len(acquire) and any(count > share for count in owners.values())
    return Decision(acquire, tuple(held[share:]), eager)


def _is_free(one: ShardState, me: UUID) -> bool:
    return one.owner is None or not one.live or one.owner == me


class Leases:
    """The shards this relay holds: epoch, and until when by the monotonic clock."""

    def __init__(self, duration: float) -> None:
        self.duration = duration
        self._epochs: dict[int, int] = {}
        self._until = 0.0
        self._leaving: set[int] = set()

    @property
    def epochs(self) -> Mapping[int, int]:
        """Shard → epoch, of all that is held."""
        return self._epochs

    @property
    def until(self) -> float:
        """The moment of the monotonic clock from which on nothing may be sent."""
        return self._until

    def __len__(self) -> int:
        return len(self._epochs)

    def valid(self, now: float) -> bool:
        """Return whether the leases are known to run."""
        return now < self._until

    def readable(self, now: float) -> list[int]:
        """Return the shards whose events may be read and sent."""
        return [shard for shard in self._epochs if shard not in self._leaving] if self.valid(now) else []

    def holds(self, shard: int, epoch: int, now: float) -> bool:
        """Return whether this very lease is known to run."""
        return self.valid(now) and self._epochs.get(shard) == epoch

    def renewed(self, asked_at: float) -> None:
        """Record that the database has prolonged the leases; `asked_at` is when the renewal was sent (monotonic)."""
        self._until = asked_at + self.duration * (1 - MARGIN)

    def seen(self, me: UUID, shards: Sequence[ShardState]) -> list[int]:
        """Compare with what the database has; returns the shards that are lost."""
        mine = {one.shard: one.epoch for one in shards if one.owner == me and one.live}
        lost = [shard for shard, epoch in self._epochs.items() if mine.get(shard) != epoch]
        for shard in lost:
            self.dropped(shard)
        return lost

    def acquired(self, epochs: Mapping[int, int]) -> None:
        """The database has given us shards; they run with the leases renewed just before."""
        self._epochs.update(epochs)
        self._leaving.difference_update(epochs)

    def leave(self, shards: Iterable[int]) -> None:
        """Read no more of these; they are to be given back."""
        self._leaving.update(shard for shard in shards if shard in self._epochs)

    def leaving(self) -> list[int]:
        """Return the shards to release."""
        return sorted(self._leaving)

    def dropped(self, shard: int) -> None:
        """A shard is given back or lost."""
        self._epochs.pop(shard, None)
        self._leaving.discard(shard)

    def clear(self) -> list[int]:
        """Give up all of it; returns what was held."""
        held = list(self._epochs)
        self._epochs.clear()
        self._leaving.clear()
        self._until = 0.0
        return held
