"""Events between the slot and their acknowledgement; pure.

A shard is either *streamed*, its events go out as they come through the slot, or *tabled*, its events are read from
the table as the polling relay does. A shard begins tabled, is streamed once its table is known to be empty, and is
tabled again as soon as anything about it isn't plain: a failed publish, a topic that waits, a parked key, a delayed
event. So there is one way of coping with trouble, the polling relay's, and the stream is the fast path beside it.

What comes through the slot for a tabled shard
    when rows stay in the table until they are published: is left there
    when rows are deleted by the transaction that wrote them: is written to the table by us, *spilled*, in order

The slot may forget a transaction when each of its events is acknowledged or lies in the table: `confirmed`.
"""

from collections import deque
from collections.abc import Collection, Iterable, KeysView, Mapping, Sequence
from datetime import datetime
from itertools import islice, repeat

import msgspec

from backstay.outbox.errors import OutboxError
from backstay.outbox.store import Row
from backstay.outbox.wal.pgoutput import Begin, Commit, Insert, Mark, Message
from backstay.outbox.wal.snapshot import Snapshot

KEEP_MARK = "backstay.outbox.keep"  # the logical message of transactions whose rows stay in an emptied table
EMPTY_MARK = "backstay.outbox.empty"  # from here on rows leave the table with the transaction that wrote them


class _Transaction:
    """`left`: its events that are in our hands; `end`: its position once it is complete."""

    __slots__ = ("end", "kept", "left", "xid")

    def __init__(self, xid: int) -> None:
        self.xid = xid
        self.end = self.left = 0
        self.kept = False


class _Held(msgspec.Struct, frozen=True, gc=False):
    """A row in our hands; `size` are its bytes, `due` when it may be published. No tuple: thousands of them would be
    what every run of the garbage collector walks through.
    """

    row: Row
    tx: _Transaction
    size: int
    due: datetime | None = None


class Feed:
    """See the module. `spills`: rows leave the table with the transaction that wrote them."""

    def __init__(self, *, spills: bool, max_rows: int, max_bytes: int) -> None:
        self.spills = spills
        self.confirmed = 0
        self.noticed = False  # something came for a tabled shard: look into the table soon
        self.gathering = False  # more comes at once: what waits is handed out together with it
        self.streamed_rows = 0  # handed out since the start
        self._max_rows, self._max_bytes = max_rows, max_bytes
        self._rows = self._bytes = 0
        self._streamed: dict[int, Snapshot | None] = {}
        self._queues: dict[int, deque[_Held]] = {}
        self._handed: dict[int, dict[int, _Held]] = {}
        self._transactions: deque[_Transaction] = deque()
        self._current = _Transaction(0)
        self._unsure: set[int] = set()  # transactions left to the table that may not be visible there yet
        self._looked_up: set[int] = set()  # rows that came from the table and aren't known to be published
        self._aside: dict[int, deque[_Held]] = {}
        self._urgent: set[int] = set()  # shards whose table may hold what comes behind something to be spilled

    @property
    def full(self) -> bool:
        """True if no more may be taken from the slot for now."""
        return self._rows >= self._max_rows or self._bytes >= self._max_bytes

    @property
    def waiting(self) -> int:
        """Events that were not handed out yet."""
        return self._rows

    @property
    def unsure(self) -> bool:
        """True if something left to the table may not be visible there yet."""
        return bool(self._unsure)

    @property
    def streamed(self) -> Collection[int]:
        """The shards that are streamed."""
        return self._streamed.keys()

    def may_read_table(self, shard: int) -> bool:
        """Return whether the shard is tabled, and its table lacks nothing of before what it has."""
        return shard not in self._streamed and shard not in self._urgent

    def tabled(self, shards: Sequence[int]) -> list[int]:
        """Those of the shards of which the table may be read."""
        if self._streamed.keys() >= set(shards):
            return []
        return [shard for shard in shards if self.may_read_table(shard)]

    # -- what comes through the slot

    def push(self, message: Message) -> None:
        """The next message."""
        if isinstance(message, Insert):
            self.insert(*message)
        elif isinstance(message, Begin):
            self._current = _Transaction(message.xid)
            self._transactions.append(self._current)
        elif isinstance(message, Commit):
            self._commit(message.end)
        elif isinstance(message, Mark):
            self._mark(message.prefix)

    def quiet(self, position: int) -> None:
        """The server has sent all there was before `position`."""
        if not self._transactions:
            self.confirmed = max(self.confirmed, position)

    def _mark(self, prefix: str) -> None:
        if prefix == KEEP_MARK:
            self._current.kept = True
        elif prefix == EMPTY_MARK and not self.spills:
            raise OutboxError("from here on rows leave the table at once: reading must begin anew")

    def _commit(self, end: int) -> None:
        """A transaction that has left nothing in our hands is done as soon as the one before it."""
        tx, transactions = self._current, self._transactions
        tx.end = end
        if not tx.left and len(transactions) > 1:
            transactions.pop()
            transactions[-1].end = end
        self._advance()

    def insert(self, row: Row, size: int, due: datetime | None) -> None:
        """The next event of the transaction."""
        tx, shard = self._current, row[0]
        if shard in self._streamed:
            snapshot = self._streamed[shard]
            if snapshot is not None and snapshot.sees(tx.xid):
                return
            if not tx.kept and due is None:
                tx.left += 1
                queue = self._queues.get(shard)
                if queue is None:
                    queue = self._queues[shard] = deque()
                queue.append(_Held(row, tx, size))
                self._rows += 1
                self._bytes += size
                return
            self.leave([shard])
        self.noticed = True
        if not self.spills:
            self._unsure.add(tx.xid)
        elif not tx.kept:
            tx.left += 1
            self._put_aside(_Held(row, tx, size, due))

    # -- what the relay takes, and what became of it

    def take(
        self,
        shards: Iterable[int],
        *,
        limit: int,
        per_shard: int,
        topics: Collection[str],
        keys: Collection[tuple[str, bytes | None]],
    ) -> list[Row]:
        """Return the next events of streamed shards; one at whose head is something that waits is tabled."""
        found: list[Row] = []
        if self.gathering or not self._rows:
            return found
        for shard in shards:
            queue = self._queues.get(shard)
            if not queue:
                continue
            room = min(per_shard, limit - len(found))
            if room <= 0:
                break
            if (topics or keys) and self._waits(queue, room, topics, keys):
                self.leave([shard])
                continue
            self._hand_out(shard, queue, room, found)
        return found

    def check(self, shards: Iterable[int], known: Sequence[int]) -> None:
        """These shards aren't in flight: what was handed out and isn't among `known` (acknowledged) has failed."""
        suspicious = [shard for shard in shards if self._handed.get(shard)]
        if not suspicious:
            return
        if not self._looked_up and len(known) == sum(len(self._handed[shard]) for shard in suspicious):
            return  # all that is known was handed out here, so it is the same
        acknowledged = frozenset(known)
        for shard in suspicious:
            handed = self._handed[shard]
            if handed.keys() <= acknowledged:
                continue
            self._back(shard, [handed.pop(seq) for seq in list(handed) if seq not in acknowledged])
            self.leave([shard])

    def recall(self, shards: Iterable[int]) -> None:
        """These are given away: what was handed out of them and isn't acknowledged goes the way of the rest."""
        for shard in shards:
            if handed := self._handed.pop(shard, None):
                self._back(shard, list(handed.values()))
        self.leave(shards)

    def _back(self, shard: int, failed: Sequence[_Held]) -> None:
        """To the table, before all that comes behind it."""
        if not self.spills:
            for held in failed:
                self._to_table(held)
            return
        self.noticed = True
        self._aside.setdefault(shard, deque()).extendleft(reversed(failed))
        self._rows += len(failed)
        self._bytes += sum(held.size for held in failed)
        self._urgent.add(shard)

    def done(self, rows: Mapping[int, Collection[int]]) -> dict[int, list[int]]:
        """These are acknowledged; returns those of them that didn't come through here."""
        others: dict[int, list[int]] = {}
        for shard, seqs in rows.items():
            if self._looked_up:
                self._looked_up.difference_update(seqs)
            handed = self._handed.get(shard)
            if not handed:
                others[shard] = list(seqs)
                continue
            for seq in seqs:
                held = handed.pop(seq, None)
                if held is None:
                    others.setdefault(shard, []).append(seq)
                else:
                    held.tx.left -= 1
            if not handed:
                del self._handed[shard]
        self._advance()
        return others

    def follow_up(self, before: "Feed") -> None:
        """Whatever the relay had through the feed `before` is no longer ours to follow."""
        self._looked_up = before._looked_up.union(*before._handed.values())

    def looked_up(self, rows: Iterable[Row]) -> None:
        """The relay has these from the table."""
        self._looked_up.update(row[1] for row in rows)

    # -- changes of state

    def leave(self, shards: Iterable[int]) -> None:
        """These are tabled from now on. What is in flight stays so."""
        for shard in shards:
            self._streamed.pop(shard, None)
            for held in self._queues.pop(shard, ()):
                self._rows -= 1
                self._bytes -= held.size
                self._to_table(held)
        self._advance()

    def join(self, shards: Iterable[int], snapshot: Snapshot) -> None:
        """The table had nothing of these to publish in this snapshot: what comes and wasn't visible there is next."""
        self._unsure = {xid for xid in self._unsure if not snapshot.sees(xid)}
        if self._unsure:
            return
        joined = {shard for shard in shards if shard not in self._urgent and not self._handed.get(shard)}
        if self.spills:
            joined -= {shard for shard in joined if any(held.due is not None for held in self._aside.get(shard, ()))}
            # The table is empty, so what was put aside for it needn't go there: it is next.
            self._queues.update((shard, self._aside.pop(shard)) for shard in joined & self._aside.keys())
        self._streamed.update(dict.fromkeys(joined, None if self.spills else snapshot))

    def remember(self, snapshot: Snapshot) -> None:
        """Record that all rows visible to this snapshot are in the table."""
        self._unsure = {xid for xid in self._unsure if not snapshot.sees(xid)}

    def candidates(self, shards: Iterable[int]) -> list[int]:
        """Those of the shards that may be streamed if their table is empty."""
        return [shard for shard in shards if self.may_read_table(shard) and not self._handed.get(shard)]

    # -- spilling

    @property
    def aside(self) -> KeysView[int]:
        """Shards of which something is put aside: the next to be streamed, or to be written to the table."""
        return self._aside.keys()

    @property
    def urgent(self) -> Collection[int]:
        """Shards that can't go on before it is written."""
        return self._urgent

    def spillable(self, shards: Iterable[int]) -> set[int]:
        """Those of which nothing is handed out: else that might have to lie in the table before what is put aside."""
        return {shard for shard in shards if not self._handed.get(shard)}

    def to_spill(self, limit: int, shards: Collection[int]) -> list[tuple[Row, datetime | None]]:
        """Return the next rows of these shards to write to the table, and when they are due; then call `spilled`."""
        found: list[tuple[Row, datetime | None]] = []
        for shard in shards:
            found += [(held.row, held.due) for held in islice(self._aside.get(shard, ()), limit - len(found))]
        return found

    def spilled(self, rows: Collection[tuple[Row, datetime | None]]) -> None:
        """These are in the table."""
        written = {row[1] for row, _ in rows}
        for shard in {row[0] for row, _ in rows}:
            left = deque[_Held]()
            for held in self._aside.pop(shard):
                if held.row[1] in written:
                    held.tx.left -= 1
                    self._rows -= 1
                    self._bytes -= held.size
                else:
                    left.append(held)
            if left:
                self._aside[shard] = left
            else:
                self._urgent.discard(shard)
        self.noticed = True
        self._advance()

    def _to_table(self, held: _Held) -> None:
        self.noticed = True
        if self.spills:
            self._put_aside(held)
        else:
            held.tx.left -= 1
            self._unsure.add(held.tx.xid)

    def _put_aside(self, held: _Held) -> None:
        self._aside.setdefault(held.row[0], deque()).append(held)
        self._rows += 1
        self._bytes += held.size

    # -- helpers

    def _hand_out(self, shard: int, queue: deque[_Held], room: int, found: list[Row]) -> None:
        handed = self._handed.setdefault(shard, {})
        count, size = min(room, len(queue)), 0
        for _ in repeat(None, count):
            held = queue.popleft()
            row = held.row
            handed[row[1]] = held
            found.append(row)
            size += held.size
        self._rows -= count
        self._bytes -= size
        self.streamed_rows += count

    def _waits(
        self, queue: deque[_Held], room: int, topics: Collection[str], keys: Collection[tuple[str, bytes | None]]
    ) -> bool:
        heads = [queue[n].row for n in range(min(room, len(queue)))]
        return any(row[3] in topics or (row[3], _key(row)) in keys for row in heads)

    def _advance(self) -> None:
        transactions = self._transactions
        while transactions and transactions[0].end and not transactions[0].left:
            self.confirmed = max(self.confirmed, transactions.popleft().end)


def _key(row: Row) -> bytes:
    return row[4].encode() if isinstance(row[4], str) else row[4]
