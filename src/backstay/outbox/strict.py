"""Strict mode: every publish is one transaction of the broker, fenced by a transactional id per group of shards.

A group of shards moves between relays as a whole. Whoever takes one over opens its transactional id, which fences the
former owner at the broker and ends its transaction; then it asks the broker which mark was committed last, and deletes
the rows that were noted under it; only then it reads. So a row is in a committed transaction once, whoever died when:

    note the rows and a mark     in the database, under the epoch
    the records and the mark     in one transaction of the broker
    delete the rows              in the database, under the epoch; before the group's next note

What the broker forgets (marks and ids that nobody used for `offsets.retention.minutes`, a week by default) can't be
asked for: then rows of the last note may go out once more.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from backstay import faults
from backstay.db import DatabaseError
from backstay.ids import uuid7
from backstay.messaging import Broker, Fenced, MessagingError, PublishError, Record, TransactionalProducer
from backstay.outbox.cycle import Cycle, LeaseLost
from backstay.outbox.errors import OutboxError
from backstay.outbox.leases import Decision, ShardState, View, decide
from backstay.outbox.store import SHARDS, Notes
from backstay.outbox.waiting import PRODUCER_WAIT, Key, Pending, Waiting
from backstay.outbox.window import Batch

GROUPS = 8  # of the shards of a table; part of the transactional ids, so the same for all relays for ever
GROUP_SHARDS = SHARDS // GROUPS
ROUNDS = 3  # transactions of a batch, each without what was refused in the one before

log = logging.getLogger("backstay.outbox")


def group_of(shard: int) -> int:
    """Return the group that a shard moves with."""
    return shard // GROUP_SHARDS


def shards_of(group: int) -> range:
    """Return the shards of a group."""
    return range(group * GROUP_SHARDS, (group + 1) * GROUP_SHARDS)


def by_group(view: View) -> View:
    """Return the view with groups in the place of shards: a group is free when all of its shards are."""
    groups: dict[int, list[ShardState]] = {}
    for one in view.shards:
        groups.setdefault(group_of(one.shard), []).append(one)
    states = []
    for group, shards in groups.items():
        live = [one for one in shards if one.live]
        owner = next((one.owner for one in live or shards if one.owner is not None), None)
        states.append(ShardState(group, owner, 0, bool(live)))
    return View(tuple(states), view.members, view.parked)


class Producers:
    """The transactional producers of one life of a relay, one for each of its groups. An async context manager."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._open: list[TransactionalProducer] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.purge()
        for producer in self._open:
            with suppress(MessagingError):
                await producer.__aexit__(kind, error, trace)

    async def open(self, ident: str) -> TransactionalProducer:
        """Return a producer whose predecessors are fenced."""
        producer = self._broker.transactional(ident)
        await producer.__aenter__()
        self._open.append(producer)
        return producer

    async def close(self, producer: TransactionalProducer) -> None:
        """One that isn't needed any more."""
        self._open.remove(producer)
        await producer.__aexit__(None, None, None)

    async def publish(self, records: Sequence[Record]) -> list[PublishError | None]:
        """Never: who publishes without a transaction isn't strict."""
        raise OutboxError(f"{len(records)} records without a transaction")

    def purge(self) -> None:
        """Give up all that isn't committed."""
        for producer in self._open:
            producer.purge()


@dataclass(slots=True)
class _Group:
    """A group that is held: under these epochs; `producer` when it is open; when to try that again."""

    epochs: Mapping[int, int]
    producer: TransactionalProducer | None = None
    opening: bool = False
    waiting: Waiting | None = None


class StrictCycle(Cycle):
    """One life of a relay in strict mode."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._groups: dict[int, _Group] = {}
        self._flying: set[int] = set()  # groups with a transaction on its way, or not yet settled
        self._identity = ""
        self._aside: set[asyncio.Task[None]] = set()

    def _decide(self, view: View) -> Decision:
        held = {group_of(shard) for shard in self.leases.epochs}
        decision = decide(self._me, held, by_group(view))
        take, give = (
            tuple(shard for group in groups for shard in shards_of(group))
            for groups in (decision.acquire, decision.release)
        )
        return Decision(take, give, decision.eager)

    async def _acquire(self, shards: Sequence[int]) -> Mapping[int, int]:
        """Whole groups only; what came alone is given back."""
        epochs = await super()._acquire(shards)
        whole = {shard: epoch for shard, epoch in epochs.items() if set(shards_of(group_of(shard))) <= set(epochs)}
        if parts := {shard: epoch for shard, epoch in epochs.items() if shard not in whole}:
            await self._session.release(self._me, parts)
        return whole

    # -- opening

    def _readable(self, now: float) -> list[int]:
        """Shards of groups that are open and have no transaction on its way."""
        readable = super()._readable(now)
        self._look_after(set(map(group_of, readable)), now)
        ready = {n for n, group in self._groups.items() if group.producer is not None and n not in self._flying}
        return [shard for shard in readable if group_of(shard) in ready]

    def _look_after(self, wanted: set[int], now: float) -> None:
        """Open what is newly held, and forget what isn't held any more."""
        for number, group in list(self._groups.items()):
            if group.epochs != self._epochs_of(number) and not group.opening:
                del self._groups[number]
                if group.producer is not None:
                    self._spawn(self._producers.close(group.producer))
        for number in wanted - set(self._groups):
            self._groups[number] = _Group(self._epochs_of(number))
        for number, group in self._groups.items():
            rests = group.waiting is not None and now < group.waiting.until
            if group.producer is None and not group.opening and not rests:
                group.opening = True
                self._spawn(self._open(number, group))

    async def _open(self, number: int, group: _Group) -> None:
        """Fence the former owner, and settle what it has left behind."""
        now = self._clock.monotonic
        try:
            self._identity = self._identity or await self._notes.identity()
            producer = await self._producers.open(f"backstay-outbox-{self._identity}-{number}")
            await faults.point("outbox.relay.after-fence")
            settled = await self._notes.settle(self._me, number, group.epochs, await producer.marks())
        except MessagingError as error:
            group.waiting = Waiting.after(group.waiting, PRODUCER_WAIT, str(error), now())
            self.window.waits.producer = group.waiting
            log.warning("outbox.group-not-opened", extra={"group": number, "reason": str(error)})
        except DatabaseError as error:
            await self._endure(error)
        else:
            if settled is None:
                self._lost(list(group.epochs), "its epoch has changed")
            self._counters.recovered += settled or 0
            group.producer, group.waiting, self.window.waits.producer = producer, None, None
        finally:
            group.opening = False
            self._wake.set()

    # -- publishing

    def _take(self, records: Sequence[Pending], held: Mapping[int, int]) -> list[Batch]:
        """Return a batch for each group."""
        groups: dict[int, list[Pending]] = {}
        for one in records:
            groups.setdefault(group_of(one.shard), []).append(one)
        batches = []
        for number, rows in groups.items():
            group = self._groups.get(number)
            if group is None or group.producer is None or number in self._flying:
                continue
            if (batch := self.window.take(rows, held)) is not None:
                self._flying.add(number)
                batches.append(batch)
        return batches

    async def _publish(self, batch: Batch, *, more: bool) -> None:
        try:
            await super()._publish(batch, more=more)
        finally:
            self._flying.discard(group_of(batch.rows[0].shard))

    async def _send(self, batch: Batch) -> Sequence[PublishError | None]:
        try:
            return await self._transactions(group_of(batch.rows[0].shard), batch)
        except Fenced as error:
            self._counters.fenced += 1
            raise LeaseLost(f"another relay has taken the shards over: {error}") from error

    async def _transactions(self, number: int, batch: Batch) -> Sequence[PublishError | None]:
        """Publish the batch; what is refused is left out, with what follows it, and the rest is tried again."""
        results: dict[int, PublishError] = {}
        rest = list(range(len(batch.rows)))
        for _ in range(ROUNDS):
            answers = await self._transaction(number, [batch.rows[index] for index in rest])
            if not any(answers):
                self._counters.transactions += 1
                return [results.get(index) for index in range(len(batch.rows))]
            self._counters.aborted += 1
            found = dict(zip(rest, answers, strict=True))
            left_out = _left_out(batch.rows, found)
            rest = [index for index in rest if index not in left_out]
            results |= left_out
            if not left_out or not rest:
                break
        unlucky = PublishError("producer", next(str(error) for error in answers if error is not None))
        return [results.get(index, unlucky) for index in range(len(batch.rows))]

    async def _transaction(self, number: int, rows: Sequence[Pending]) -> Sequence[PublishError | None]:
        """Note and publish: one transaction, once the rows of the one before are deleted."""
        group, mark = self._groups[number], uuid7()
        assert group.producer is not None
        seqs: dict[int, list[int]] = {}
        for row in rows:
            seqs.setdefault(row.shard, []).append(row.seq)
        while True:
            try:
                while self.window.known(shards_of(number)):
                    await self._delete()
                held = await self._notes.note(self._me, number, mark, seqs, group.epochs)
                break
            except DatabaseError as error:
                await self._endure(error)
        if not held:
            self._counters.epoch_conflicts += 1
            self._lost(list(group.epochs), "its epoch has changed")
        await faults.point("outbox.relay.after-note")
        return await group.producer.publish([row.record for row in rows], str(mark))

    # -- small things

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks.create_task(work, name="outbox-group")
        self._aside.add(task)
        task.add_done_callback(self._aside.discard)

    async def _give_up(self) -> None:
        for task in self._aside:
            task.cancel()
        await super()._give_up()

    @property
    def _producers(self) -> Producers:
        return cast(Producers, self._producer)

    @property
    def _notes(self) -> Notes:
        return cast(Notes, self._session)

    def _epochs_of(self, number: int) -> dict[int, int]:
        return {shard: self.leases.epochs[shard] for shard in shards_of(number) if shard in self.leases.epochs}


def _left_out(rows: Sequence[Pending], found: Mapping[int, PublishError | None]) -> dict[int, PublishError]:
    """Return the errors of a failed transaction, and of what must wait behind them: later rows of a key, or a topic."""
    out: dict[int, PublishError] = {}
    keys: set[Key] = set()
    topics = {rows[n].record.topic for n, error in found.items() if error is not None and error.kind == "retriable"}
    for index, error in found.items():
        row = rows[index]
        if error is not None and error.kind != "producer":
            out[index] = error
            keys.add(row.key)
        elif row.key in keys or row.record.topic in topics:
            out[index] = PublishError("retriable", "held back: an earlier record was refused")
    return out


__all__ = ["GROUPS", "Producers", "StrictCycle", "by_group", "group_of", "shards_of"]
