"""A relay's session whose events come through a replication slot, and from the table when that is the safer way.

Whoever reads the slot is the leader and takes all shards; the others stand by and take the slot when it is free, the
shards when their leases are. The leases still fence: a leader that was stopped and continued knows its are over before
it sends, and a slot has one reader at a time.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from enum import Enum
from typing import Protocol
from uuid import UUID

from backstay.errors import BackstayError
from backstay.outbox.leases import View
from backstay.outbox.store import Backlog, Row, Session
from backstay.outbox.wal.backing import Backing, Slot
from backstay.outbox.wal.feed import Feed
from backstay.outbox.wal.options import WalOptions
from backstay.outbox.wal.replication import SlotLost, SlotTaken

LOOK = (0.0025, 1.0)  # seconds between looks into the table of tabled shards: at first, at most
LOOK_GROWTH = 1.5
SPILL_ROWS = 500  # rows written to the table at once
SPILL_AFTER = 0.25  # seconds; a shard whose table empties meanwhile takes back what was put aside
CALM = 0.8  # share of the WAL limit below which new events are taken again
DELETE_TRIES = 5  # for acknowledged rows that aren't visible to a deletion yet

log = logging.getLogger("backstay.outbox")


class Follower(Protocol):
    """A started stream."""

    room: asyncio.Event

    def follow(self, interval: float) -> AsyncIterator[int]:
        """Push messages into the feed for ever."""
        ...


Attach = Callable[[Feed], AbstractAsyncContextManager[Follower]]


class Role(Enum):
    """The role of this relay."""

    POLLING = "no slot to read: all shards are read from the table"
    LEADING = "reads the slot"
    STANDBY = "another relay reads the slot"


class Overgrown(BackstayError):
    """The server keeps too much for the slot."""


class WalSession:
    """The `Session`; `run` must run beside it. `wake` is called when there is something to read."""

    def __init__(
        self, table: Session, backing: Backing, attach: Attach, *, options: WalOptions, wake: Callable[[], None]
    ) -> None:
        self.role = Role.POLLING
        self.problem = ""
        self._table, self._backing, self._attach = table, backing, attach
        self._options, self._wake = options, wake
        self._feed = self._new_feed(spills=False)
        self._room = asyncio.Event()
        self._turn = asyncio.Lock()
        self._me: UUID | None = None
        self._lease = 0.0
        self._look_at, self._gap = 0.0, LOOK[0]
        self._overgrown = False
        self._leading_since = self._aside_since = 0.0
        self._owned: set[int] = set()
        self._stuck: set[int] = set()  # shards whose table has nothing to publish now, and isn't empty
        self._ask = False
        self._again: list[tuple[UUID, dict[int, list[int]], dict[int, int], int]] = []

    # -- the slot

    async def run(self) -> None:
        """Get the slot and follow it, for ever."""
        while True:
            try:
                await self._lead()
            except SlotTaken:
                self.role = Role.STANDBY
            except Overgrown as error:
                await self._give_slot_up(str(error))
            except Exception as error:
                self.role = Role.POLLING
                known = error if not isinstance(error, BackstayError) else None
                reason = {"slot": self._options.slot, "reason": str(error)}
                log.warning("outbox.slot-trouble", extra=reason, exc_info=known)
            await asyncio.sleep(self._options.retry)

    async def _lead(self) -> None:
        """Follow the slot until something breaks."""
        spills = await self._backing.empties()
        await self._ready(await self._backing.slot(), spills=spills)
        feed = self._new_feed(spills=spills)
        async with self._attach(feed) as stream:
            feed.follow_up(self._feed)
            self._feed, self._room = feed, stream.room
            self.role, self.problem, self._overgrown = Role.LEADING, "", False
            self._leading_since, self._aside_since = time.monotonic(), 0.0
            self._wake()
            log.info("outbox.slot-followed", extra={"slot": self._options.slot, "emptied": spills})
            try:
                async for count in stream.follow(self._options.confirm_interval):
                    await self._spill()
                    if count:
                        self._wake()
                    if self._overgrown:
                        raise Overgrown(f"the server keeps more than {self._options.max_retained_bytes:,} bytes of WAL")
            finally:
                self.role = Role.POLLING
                after = self._new_feed(spills=spills)
                after.follow_up(self._feed)
                self._feed, self._room = after, asyncio.Event()
                self._wake()

    async def _ready(self, slot: Slot | None, *, spills: bool) -> None:
        """Check that the slot exists, is ours and is free; create it anew where that loses nothing."""
        name = self._options.slot
        if slot is None or slot.lost:
            what = "is not there" if slot is None else "has lost what it needs (wal_status 'lost')"
            if spills:
                await self._refuse(f"replication slot {name!r} {what}")
                raise SlotLost(self.problem)
            log.warning("outbox.slot-made", extra={"slot": name, "reason": what})
            if slot is not None:
                await self._backing.drop_slot()
            await self._backing.create_slot()
        elif slot.plugin != "pgoutput" or slot.database is None:
            self.problem = f"replication slot {name!r} is of plugin {slot.plugin!r}: name another, or drop it"
            raise SlotLost(self.problem)
        elif slot.active:
            raise SlotTaken(f"replication slot {name!r} is being read")
        elif slot.retained > self._options.max_retained_bytes and not spills:
            raise Overgrown(f"the server keeps {slot.retained:,} bytes of WAL")

    async def _give_slot_up(self, why: str) -> None:
        """Rows lie in the table, so nothing is lost with the slot; it is made anew soon."""
        self.role = Role.POLLING
        log.error("outbox.slot-given-up", extra={"slot": self._options.slot, "reason": why})
        try:
            await self._backing.drop_slot()
        except BackstayError as error:
            log.warning("outbox.slot-trouble", extra={"slot": self._options.slot, "reason": str(error)})

    def _due(self) -> set[int]:
        """Shards whose events must go to the table: others wait until their table is empty, and are streamed then."""
        aside = self._feed.aside
        if not aside:
            self._aside_since = 0.0
            return set()
        now = time.monotonic()
        self._aside_since = self._aside_since or now
        due = set(self._feed.urgent)
        if now >= self._aside_since + SPILL_AFTER:
            due |= aside & self._stuck
        if now >= self._leading_since + 1.5 * self._lease:
            due |= aside - self._owned
        return self._feed.spillable(due)

    async def _spill(self, shards: Collection[int] | None = None) -> None:
        """Write rows that can't be published now to the table; never while a read decides whether a table is empty."""
        due = self._due() if shards is None else shards
        while due:
            async with self._turn:
                feed = self._feed
                rows = feed.to_spill(SPILL_ROWS, due)
                if not rows:
                    return
                await self._backing.spill(rows)
                feed.spilled(rows)
            self._aside_since = 0.0
            self._room.set()
            self._wake()

    # -- leases

    async def renew(self, relay: UUID, name: str, lease: float) -> None:
        """See `Session`."""
        self._me, self._lease = relay, lease
        await self._table.renew(relay, name, lease)

    async def view(self) -> View:
        """See `Session`; with the number of shards that are due to this relay."""
        view = await self._table.view()
        self._ask = self.role is Role.LEADING and (view.parked > 0 or self._feed.unsure)
        return replace(view, share=self._share(view))

    def _share(self, view: View) -> int | None:
        if self.role is Role.LEADING:
            return len(view.shards)
        if self.role is Role.STANDBY:
            # Somebody who reads our slot and is no relay leaves the shards to be polled.
            return 0 if any(one.live and one.owner not in (None, self._me) for one in view.shards) else None
        return None

    async def acquire(self, relay: UUID, shards: Sequence[int], lease: float) -> dict[int, int]:
        """See `Session`."""
        self._look_at = 0.0
        acquired = await self._table.acquire(relay, shards, lease)
        self._owned |= acquired.keys()
        return acquired

    async def release(self, relay: UUID, epochs: Mapping[int, int]) -> None:
        """See `Session`; what came through the slot and wasn't sent goes to the table first."""
        self._feed.recall(epochs)
        await self._spill(epochs)
        self._owned -= epochs.keys()
        await self._table.release(relay, epochs)

    async def leave(self, relay: UUID) -> None:
        """See `Session`."""
        await self._table.leave(relay)

    # -- events

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
        """See `Session`."""
        feed = self._feed
        feed.check(shards, known)
        if self._ask:
            await self._look_for_parked(feed)
        rows = feed.take(shards, limit=limit, per_shard=per_shard, topics=topics, keys=keys)
        self._room.set()
        await self._spill()
        tabled = feed.tabled(shards)
        if not tabled or len(rows) >= limit or not self._may_look(feed):
            return rows
        found = await self._table.read(
            tabled,
            limit=limit - len(rows),
            per_shard=per_shard,
            known=known,
            topics=topics,
            keys=keys,
            around=around,
        )
        self._pace(found)
        feed.looked_up(found)
        if self.role is Role.LEADING:
            await self._settle(feed, tabled, found, known)
        return rows + found

    async def _look_for_parked(self, feed: Feed) -> None:
        """Read the shards with parked keys from the table. Not while leases are renewed, which must not be delayed."""
        self._ask = False
        snapshot, shards = await self._backing.parked()
        feed.remember(snapshot)
        feed.leave(shards)

    def _may_look(self, feed: Feed) -> bool:
        if feed.noticed and self._gap > LOOK[0]:
            self._gap, self._look_at = LOOK[0], 0.0
        feed.noticed = False
        return time.monotonic() >= self._look_at

    def _pace(self, found: Sequence[Row]) -> None:
        if found or self.role is not Role.LEADING:
            self._gap = LOOK[0]
        else:
            self._gap = min(self._gap * LOOK_GROWTH, LOOK[1])
        self._look_at = time.monotonic() + self._gap

    async def _settle(self, feed: Feed, tabled: Sequence[int], found: Sequence[Row], known: Sequence[int]) -> None:
        """Stream the shards whose table is empty, but for what is published."""
        more = {row[0] for row in found}
        async with self._turn:
            shards = [shard for shard in feed.candidates(tabled) if shard not in more]
            if shards:
                snapshot, empty = await self._backing.settled(shards, known)
                feed.join(empty, snapshot)
        self._stuck -= more
        self._stuck.difference_update(feed.streamed)
        self._stuck.update(shard for shard in shards if shard not in feed.streamed)

    async def delete(
        self, relay: UUID, rows: Mapping[int, Collection[int]], epochs: Mapping[int, int]
    ) -> frozenset[int]:
        """See `Session`; the slot may forget what is acknowledged, and deleted where it lay in the table."""
        feed = self._feed
        if feed.spills:
            lying = feed.done(rows)
            self._room.set()
            if not lying:
                return frozenset(epochs)
            held = await self._table.delete(relay, lying, {shard: epochs[shard] for shard in lying})
            return held | (epochs.keys() - lying.keys())
        held, count = await self._backing.delete(relay, rows, epochs)
        kept = {shard: list(seqs) for shard, seqs in rows.items() if shard in held}
        feed.done(kept)
        if count < sum(map(len, kept.values())):
            self._again.append((relay, kept, dict(epochs), DELETE_TRIES))
        return held

    async def park(
        self, relay: UUID, shard: int, epoch: int, key: tuple[str, bytes | None], reason: str, known: Sequence[int]
    ) -> bool:
        """See `Session`; all of the shard goes to the table first."""
        self._feed.leave([shard])
        self._feed.check([shard], known)
        await self._spill([shard])
        async with self._turn:
            return await self._table.park(relay, shard, epoch, key, reason, known)

    async def gather(self, relay: UUID, epochs: Mapping[int, int], known: Sequence[int]) -> None:
        """See `Session`; not while rows are spilled, which may be among those that are parked."""
        async with self._turn:
            await self._table.gather(relay, epochs, known)

    async def backlog(self, shards: Sequence[int]) -> Backlog:
        """See `Session`; guards the server's disk too."""
        found, slot, feed = await self._table.backlog(shards), await self._backing.slot(), self._feed
        await self._delete_again()
        retained = slot.retained if slot is not None else 0
        if self.role is Role.LEADING:
            await self._guard(retained, feed)
        pending = found.pending + (feed.waiting if feed.spills else 0)
        return Backlog(pending, found.oldest_age, retained, len(feed.streamed), self.problem)

    async def _delete_again(self) -> None:
        """A transaction can come through the slot before it is visible: its rows are deleted later."""
        again, self._again = self._again, []
        for relay, rows, epochs, tries in again:
            _, count = await self._backing.delete(relay, rows, epochs)
            if not count and tries > 1:
                self._again.append((relay, rows, epochs, tries - 1))

    async def _guard(self, retained: int, feed: Feed) -> None:
        limit = self._options.max_retained_bytes
        if retained > limit and not feed.spills:
            self._overgrown = True
        elif retained > limit:
            await self._refuse(
                f"the server keeps {retained:,} bytes of WAL for replication slot {self._options.slot!r},"
                f" more than the {limit:,} allowed: see what keeps the relay from publishing"
            )
        elif feed.spills and retained <= limit * CALM:
            self.problem = ""
            if await self._backing.refuse(None):
                log.info("outbox.takes-events-again", extra={"slot": self._options.slot})

    async def _refuse(self, why: str) -> None:
        self.problem = why
        if await self._backing.refuse(why):
            log.error("outbox.refuses-events", extra={"slot": self._options.slot, "reason": why})

    def _new_feed(self, *, spills: bool) -> Feed:
        options = self._options
        return Feed(spills=spills, max_rows=options.buffer_rows, max_bytes=options.buffer_bytes)
