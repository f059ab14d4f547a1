"""Use cases of stock. Rows are locked in the order of their skus before anything is decided about them."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction
from backstay.outbox import Outbox
from backstay.service import (
    NO_CONDITIONS,
    Answer,
    Conditions,
    Conflict,
    FieldError,
    IdempotencyKey,
    NotFound,
    Unprocessable,
    version_tag,
)
from shop.inventory import events, store
from shop.inventory.model import Audited, Change, Level, Line, Reserved, TooMuch, Wish, decide_all

View = TypeVar("View")


class Stock:
    """Inventory's use cases."""

    def __init__(self, db: Database, box: Outbox, *, clock: Clock = SYSTEM) -> None:
        self._db = db
        self._box = box
        self._clock = clock

    async def page(self, *, after: str | None, limit: int) -> list[Level]:
        """Up to `limit` products behind `after`, by sku."""
        return await store.page(self._db, after=after, limit=limit)

    async def find(self, sku: str) -> Level:
        """One product's stock. Raises NotFound."""
        found = await store.find(self._db, sku)
        if found is None:
            raise _unknown(sku)
        return found

    async def ledger(self, sku: str, *, before: int | None, limit: int) -> list[Line]:
        """Up to `limit` lines of a product's ledger older than version `before`, the newest first. Raises NotFound."""
        await self.find(sku)
        return await store.ledger(self._db, sku, before=before, limit=limit)

    async def count(
        self, sku: str, *, on_hand: int, reorder_level: int | None, conditions: Conditions = NO_CONDITIONS
    ) -> Level:
        """Set the counted quantity of a product. An unknown one gets its row: its creation may still be in flight.

        Raises PreconditionFailed; stock that was never set has no entity tag, so `If-None-Match: *` sets it once.
        """
        now = self._clock.now()
        async with self._db.transaction() as tx:
            await store.create(tx, sku, now=now)
            return await self._change(
                tx, sku, lambda level: level.set(on_hand, reorder_level, now=now), now=now, conditions=conditions
            )

    async def restock(
        self, sku: str, *, quantity: int, key: IdempotencyKey, view: Callable[[Level], View]
    ) -> Answer[View]:
        """Goods came in; once per key, which keeps the answer that `view` makes of the new level. Raises NotFound."""
        now = self._clock.now()
        async with self._db.transaction() as tx:
            if (first := await key.claim(tx, {"sku": sku, "quantity": quantity})) is not None:
                return first
            level = await self._change(tx, sku, lambda level: level.restock(quantity, now=now), now=now)
            return await key.answer(tx, view(level))

    async def create(self, tx: Transaction, sku: str) -> None:
        """A product entered the catalog: it has a row, with nothing set and nothing published."""
        await store.create(tx, sku, now=self._clock.now())

    async def lock(self, tx: Transaction, skus: Sequence[str]) -> None:
        """Hold the stock of all these products until the transaction ends."""
        await store.lock(tx, skus)

    async def reserve(self, tx: Transaction, wishes: Sequence[Wish]) -> None:
        """Each confirmed order gets all of its lines or none, in their order; once, whatever is repeated."""
        known = await store.opened(tx, [wish.order_id for wish in wishes])
        fresh: dict[UUID, Wish] = {}
        for wish in wishes:
            if wish.order_id not in known:
                fresh.setdefault(wish.order_id, wish)
        if not fresh:
            return
        now = self._clock.now()
        levels = await store.lock(tx, sorted({sku for wish in fresh.values() for sku in wish.units}))
        decided = decide_all(levels, list(fresh.values()), now=now)
        told = [event for wish, decision in decided for event in events.of_order(wish, decision, at=now)]
        await store.decide(tx, decided, self._box.rows(*told), now=now)
        self._box.appended(tx)

    async def release(self, tx: Transaction, order_id: UUID, customer_id: UUID) -> None:
        """A cancelled order gives back what it held; one that held nothing yet never will."""
        now = self._clock.now()
        if await store.bury(tx, order_id, customer_id, now=now):
            return
        if held := await store.release(tx, order_id, now=now):
            levels = await store.lock(tx, sorted(held))
            changes = [levels[sku].release(quantity, now=now) for sku, quantity in held.items()]
            await self._save(tx, changes, order_id=order_id, now=now)

    async def audit(self, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
        """Reservations that changed after a position, for the auditor."""
        return await store.audit(self._db, after, limit=limit)

    async def _change(
        self,
        tx: Transaction,
        sku: str,
        change: Callable[[Level], Change],
        *,
        now: datetime,
        conditions: Conditions = NO_CONDITIONS,
    ) -> Level:
        levels = await store.lock(tx, [sku])
        if sku not in levels:
            raise _unknown(sku)
        conditions.check(tag_of(levels[sku]))
        try:
            done = change(levels[sku])
        except Reserved as error:
            raise Conflict("stock-reserved", str(error), reserved=levels[sku].reserved) from None
        except TooMuch as error:
            raise Unprocessable(str(error), errors=[FieldError("/quantity", str(error))]) from None
        await self._save(tx, [done], order_id=None, now=now)
        return done.after

    async def _save(self, tx: Transaction, changes: Sequence[Change], *, order_id: UUID | None, now: datetime) -> None:
        await store.move(tx, changes, order_id=order_id, now=now)
        await self._box.append(tx, *events.moved(changes, at=now))


def tag_of(level: Level) -> str | None:
    """Return the entity tag of a product's stock; None if nothing was ever set."""
    return version_tag(level.version) if level.version else None


def _unknown(sku: str) -> NotFound:
    return NotFound(f"There is no stock of a product {sku}.")
