"""One life of a relay: from taking its first lease until it stops, loses a lease, or something breaks.

Whatever goes wrong ends the life as a whole: what is in flight is given up, and the next life takes its shards under
new epochs and reads again what isn't deleted. So there is one way back, and it is used often enough to be trusted.

    keeper    renews leases, takes and gives shards           on a connection of its own
    pump      reads the owned shards and starts publishes     never for a lease that may be over
    publishes one per batch, each of shards no other has      results go to the window
    sweeper   deletes what was acknowledged                   refused for shards that have changed hands
    gauge     counts what waits
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from uuid import UUID

from backstay import faults
from backstay.clock import Clock
from backstay.db import DatabaseError, Unavailable
from backstay.messaging import Producer, PublishError
from backstay.outbox.errors import OutboxError
from backstay.outbox.leases import Decision, Leases, View, decide
from backstay.outbox.options import Counters, RelayOptions
from backstay.outbox.store import Backlog, Row, Session
from backstay.outbox.waiting import Pending, Poison
from backstay.outbox.window import Batch, Outcome, Window
from backstay.outbox.wire import Encoder

LOOK = 1.0  # seconds between looks at who owns what
EAGER_LOOK = 0.1  # seconds between looks while shards are about to change hands
GAUGE_INTERVAL = 5.0  # seconds between counts of what waits
DATABASE_PAUSE = 0.2  # seconds until a statement is tried again that the database couldn't serve
SLICE = 250  # rows turned into records before others get a turn
SUSPECT_ROWS = 50  # rows in a read while records are offered one by one
SAMPLES = 20  # rows of a publish whose time to the acknowledgement is taken; each stands for its neighbours
SHORT = 0.05  # seconds that a stop may be noticed late: a plain sleep is cheaper than a time-out
IDLE_GROWTH = 1.5  # each read that finds nothing makes the next wait so much longer

log = logging.getLogger("backstay.outbox")


class LeaseLost(OutboxError):
    """A lease has expired, or another relay has taken it."""


class _Found(Enum):
    """The result of a read."""

    MORE = "more than fitted"  # read on at once
    SOME = "all there was"  # read again after a short pause
    NOTHING = "nothing"  # wait longer and longer
    NOT_READ = "no room, or no shard to read"  # wait until something changes


class Cycle:
    """One life; see the module."""

    def __init__(
        self,
        me: UUID,
        name: str,
        *,
        source: str,
        options: RelayOptions,
        counters: Counters,
        clock: Clock,
        encoder: Encoder | None = None,
    ) -> None:
        self.leases = Leases(options.lease)
        self.window = Window(max_rows=options.window_rows, max_bytes=options.window_bytes)
        self.backlog = Backlog(0, 0.0)
        self.established = False
        self.parked = 0
        self._me, self._name = me, name
        self._encoder = encoder or Encoder(source)
        self._options, self._counters, self._clock = options, counters, clock
        self._session: Session
        self._producer: Producer
        self._tasks: asyncio.TaskGroup
        self._idle = options.min_idle
        self._renew_at = 0.0
        self._blocked = False  # the pump waits for room or for a shard
        self._read_at = 0.0
        self._backlogged = False  # the last read has left something for the next
        self._around = True  # parked keys must be left out; also while it isn't known that there are none
        self._parks = 0
        self._wake = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._plenty = asyncio.Event()  # so much is acknowledged that it is deleted at once
        self._stop = asyncio.Event()
        self._publishes: set[asyncio.Task[None]] = set()

    def nudge(self) -> None:
        """Something was committed: read soon."""
        self._idle = self._options.min_idle
        self._wake.set()

    def stop(self) -> None:
        """Publish what has been committed until now, then give everything back."""
        self._stop.set()
        self._wake.set()

    async def run(self, session: Session, producer: Producer) -> None:
        """Live. Returns after `stop`; raises what ended it otherwise."""
        self._session, self._producer = session, producer
        async with asyncio.TaskGroup() as group:
            self._tasks = group
            keeper = group.create_task(self._keep(), name="outbox-keeper")
            pump = group.create_task(self._pump(group), name="outbox-pump")
            sweeper = group.create_task(self._sweep(), name="outbox-sweeper")
            gauge = group.create_task(self._measure(), name="outbox-gauge")
            await self._stop.wait()
            await self._drain(pump)
            for task in (sweeper, gauge, keeper):
                task.cancel()
            await asyncio.wait({sweeper, gauge, keeper})
            await _twice(self._delete)
            await _twice(self._give_up)

    # -- leases

    async def _keep(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._options.lease / 3):
                    eager = await self._look()
            except TimeoutError:
                raise OutboxError(f"the database did not renew a lease within {self._options.lease / 3:g} s") from None
            self.established = True
            await asyncio.sleep(EAGER_LOOK if eager else min(LOOK, self._options.lease / 3))

    async def _look(self) -> bool:
        """Renew when it is due, then read the holders; returns whether to poll again soon."""
        asked_at = self._clock.monotonic()
        if self.leases.epochs and not self.leases.valid(asked_at):
            self._lost(self.leases.clear(), "it could not be renewed in time")
        if asked_at >= self._renew_at:
            await self._session.renew(self._me, self._name, self._options.lease)
            self.leases.renewed(asked_at)
            self._renew_at = asked_at + self._options.lease / 3
        return await self._share()

    async def _share(self) -> bool:
        """Take and give shards."""
        parks = self._parks
        view = await self._session.view()
        self.parked = view.parked
        if parks == self._parks:
            self._around = view.parked > 0
        if lost := self.leases.seen(self._me, view.shards):
            self._lost(lost, "another relay has taken it")
        decision = self._decide(view)
        self.leases.leave(decision.release)
        drained = [shard for shard in self.leases.leaving() if not self.window.is_busy(shard)]
        if drained:
            await self._session.release(self._me, {shard: self.leases.epochs[shard] for shard in drained})
            for shard in drained:
                self.leases.dropped(shard)
        if decision.acquire:
            self._around = True  # their owner may have parked keys since we looked
            self.leases.acquired(await self._acquire(decision.acquire))
            self.nudge()
        return decision.eager or bool(self.leases.leaving())

    def _decide(self, view: View) -> Decision:
        return decide(self._me, self.leases.epochs, view)

    async def _acquire(self, shards: Sequence[int]) -> Mapping[int, int]:
        return await self._session.acquire(self._me, shards, self._options.lease)

    def _lost(self, shards: list[int], why: str) -> None:
        self._counters.lease_lost += len(shards)
        raise LeaseLost(f"lost the lease of {len(shards)} shards: {why}")

    # -- reading and publishing

    async def _pump(self, group: asyncio.TaskGroup) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            await self._rest(await self._read(group))
        await self._read(group)

    async def _read(self, group: asyncio.TaskGroup) -> _Found:
        now, options = self._clock.monotonic(), self._options
        room = not self.window.full and len(self._publishes) < options.publishes
        shards = self._readable(now) if room else []
        self._blocked = not shards
        if self._blocked:
            return _Found.NOT_READ
        self._read_at = now
        try:
            rows = await self._session.read(
                shards,
                limit=SUSPECT_ROWS if self.window.waits.suspects else options.batch_rows,
                per_shard=options.per_shard,
                known=self.window.known(shards),
                topics=self.window.waiting_topics(now),
                keys=self.window.waiting_keys(),
                around=self._around,
            )
        except DatabaseError as error:
            await self._endure(error)
            return _Found.NOTHING
        self._counters.reads += 1
        await faults.point("outbox.relay.after-read")
        batches = await self._batches(rows) if rows else []
        more = len(rows) >= options.per_shard or (bool(self.window.waits.suspects) and bool(rows))
        again, self._backlogged = self._backlogged and not more, more
        for batch in batches:
            task = group.create_task(self._publish(batch, more=more), name="outbox-publish")
            self._publishes.add(task)
            task.add_done_callback(self._publishes.discard)
        return _Found.MORE if more or again else _Found.SOME if rows else _Found.NOTHING

    async def _batches(self, rows: Sequence[Row]) -> list[Batch]:
        """Put the rows in flight, as far as their shards are still held."""
        records = await self._prepare(rows)
        held = {shard: self.leases.epochs[shard] for shard in self.leases.readable(self._clock.monotonic())}
        return self._take(records, held)

    def _readable(self, now: float) -> list[int]:
        """Return the shards to read, in their turn."""
        return self.window.readable(self.leases.readable(now), now, backlog=self._backlogged)

    def _take(self, records: Sequence[Pending], held: Mapping[int, int]) -> list[Batch]:
        """Put records in flight."""
        batch = self.window.take(records, held)
        return [] if batch is None else [batch]

    async def _send(self, batch: Batch) -> "Sequence[PublishError | None]":
        """Publish what is in flight; one result for each of its rows."""
        return await self._producer.publish([row.record for row in batch.rows])

    async def _prepare(self, rows: Sequence[Row]) -> list[Pending]:
        """Return the records of the rows; a full batch takes a while, and others share the event loop."""
        records: list[Pending] = []
        for start in range(0, len(rows), SLICE):
            if start:
                await asyncio.sleep(0)
            records += self._encoder.encode(rows[start : start + SLICE])
        return records

    async def _publish(self, batch: Batch, *, more: bool) -> None:
        reads = self._counters.reads
        await faults.point("outbox.relay.before-publish")
        now = self._clock.monotonic()
        results: Sequence[PublishError | None]
        if all(self.leases.holds(shard, epoch, now) for shard, epoch in batch.epochs.items()):
            results = await self._send(batch)
        else:
            results = [PublishError("producer", "the lease was over before the send")] * len(batch.rows)
        await faults.point("outbox.relay.after-publish")
        outcome = self.window.settle(batch, results, self.leases.epochs, self._clock.monotonic())
        self._count(batch.rows, outcome, results)
        for poison in outcome.poison:
            await self._park(poison, batch.epochs[poison.row.shard])
        # Rows may have come to these shards while they were busy: only who looked meanwhile could have missed them.
        if more or self._blocked or self._counters.reads != reads:
            self._wake.set()

    def _count(self, rows: Sequence[Pending], outcome: Outcome, results: "Sequence[PublishError | None]") -> None:
        self._counters.published += outcome.acknowledged
        self._counters.failed += outcome.failed
        self._counters.refused += outcome.refused
        if outcome.acknowledged:
            self._acknowledged.set()
            if self.window.acknowledged >= self._options.delete_rows:
                self._plenty.set()
            self._time(rows, results)
        if outcome.failed or outcome.refused:
            self._report(results)

    def _time(self, rows: Sequence[Pending], results: "Sequence[PublishError | None]") -> None:
        """Measure the age of rows, by the database's clock against ours."""
        step, now = 1 + len(rows) // SAMPLES, self._clock.now()
        for row, error in zip(rows[::step], results[::step], strict=True):
            if error is None and row.time is not None:
                self._counters.commit_to_ack.observe(max(0.0, (now - row.time).total_seconds()), step)

    async def _park(self, poison: Poison, epoch: int) -> None:
        """Put the key of a record that will never be taken aside, with what follows it."""
        row = poison.row
        await faults.point("outbox.relay.before-park")
        while True:
            self._around, self._parks = True, self._parks + 1
            known = self.window.in_hand([row.shard])
            try:
                held = await self._session.park(self._me, row.shard, epoch, row.key, poison.reason, known)
                break
            except DatabaseError as error:
                await self._endure(error)
        if not held:
            self._counters.epoch_conflicts += 1
            self._lost([row.shard], "its epoch has changed")
        self._counters.parked += 1
        self.window.waits.parked(row.key)
        shown = (row.record.key or b"").decode(errors="replace")
        log.error("outbox.key-parked", extra={"topic": row.record.topic, "key": shown, "reason": poison.reason})

    async def _rest(self, found: _Found) -> None:
        if found is _Found.MORE:
            self._idle = self._options.min_idle
            return
        if found is _Found.SOME:
            self._idle = self._options.min_idle
            pause = self._read_at + self._options.min_idle - self._clock.monotonic()
            if pause < SHORT:
                await asyncio.sleep(max(0.0, pause))
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stop.wait(), pause)
            return
        pause = self._idle
        self._idle = min(self._idle * IDLE_GROWTH, self._options.max_idle)
        if (retry := self.window.waits.next_retry(self._clock.monotonic())) is not None:
            pause = min(pause, retry)
        await _within(self._wake, pause)

    # -- deleting and measuring

    async def _sweep(self) -> None:
        options = self._options
        while True:
            if not self.window.acknowledged:
                self._acknowledged.clear()
                await self._acknowledged.wait()
            while (due := self.window.deletions_due(self._clock.monotonic(), options.gather, options.delete_rows)) > 0:
                self._plenty.clear()
                await _within(self._plenty, due)
            try:
                await self._delete()
            except DatabaseError as error:
                self.window.delete_failed(self._clock.monotonic())
                await self._endure(error)

    async def _delete(self) -> None:
        rows, epochs = self.window.deletions()
        if not rows:
            return
        await faults.point("outbox.relay.before-delete")
        held = await self._session.delete(self._me, rows, epochs)
        self._counters.deletes += 1
        self.window.deleted({shard: seqs for shard, seqs in rows.items() if shard in held})
        if refused := [shard for shard in epochs if shard not in held]:
            self._counters.epoch_conflicts += len(refused)
            self._lost(refused, "its epoch has changed")
        if self._blocked:
            self._wake.set()

    async def _measure(self) -> None:
        while True:
            try:
                if self.leases.epochs:
                    self.backlog = await self._session.backlog(sorted(self.leases.epochs))
                    self._counters.slot_retained_bytes = self.backlog.retained
                if self.parked and self.leases.epochs:
                    epochs = dict(self.leases.epochs)
                    await self._session.gather(self._me, epochs, self.window.in_hand(epochs))
            except DatabaseError as error:
                await self._endure(error)
            await asyncio.sleep(GAUGE_INTERVAL)

    # -- trouble and the end

    async def _drain(self, pump: "asyncio.Task[None]") -> None:
        try:
            async with asyncio.timeout(self._options.drain):
                await pump
                while self._publishes:
                    await asyncio.wait(self._publishes)
        except TimeoutError:
            log.warning("outbox.drain-cut-off", extra={"rows": self.window.in_flight})
            self._producer.purge()
            for task in (await asyncio.wait(self._publishes, timeout=1.0))[1] if self._publishes else ():
                task.cancel()

    async def _give_up(self) -> None:
        await self._session.release(self._me, dict(self.leases.epochs))
        await self._session.leave(self._me)
        self.leases.clear()

    async def _endure(self, error: DatabaseError) -> None:
        """Wait a little after a statement that may be repeated; without a connection this life is over."""
        if not error.transient or isinstance(error, Unavailable):
            raise error
        log.warning("outbox.database-trouble", extra={"reason": str(error)})
        await asyncio.sleep(DATABASE_PAUSE)

    def _report(self, results: "Sequence[PublishError | None]") -> None:
        error = next(error for error in results if error is not None)
        failed = sum(one is not None for one in results)
        log.warning("outbox.publish-failed", extra={"rows": failed, "kind": error.kind, "reason": str(error)})


async def _twice(step: Callable[[], Awaitable[None]]) -> None:
    """Do it, and again if it fails: the cancellation of the statement before may hit it."""
    try:
        await step()
    except DatabaseError:
        await step()


async def _within(event: asyncio.Event, seconds: float) -> None:
    """Wait for `event`, which is set after so long at the latest. Cheaper than a time-out: it is waited for often."""
    if seconds <= 0 or event.is_set():
        await asyncio.sleep(0)
        return
    timer = asyncio.get_running_loop().call_later(seconds, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()
