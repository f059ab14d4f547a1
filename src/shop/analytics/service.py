"""Use cases of analytics: its answers, and building them anew.

A rebuild is a new generation: tables of its own, filled by a consumer group of its own from the beginning of all
events, while the old one goes on answering. When it has caught up, the two are swapped in one transaction.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import date
from functools import partial
from typing import TypeVar
from uuid import UUID

from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Deadlock, LockTimeout, Transaction
from backstay.service import Conflict, FieldError, Unavailable, Unprocessable
from shop.analytics import store
from shop.analytics.model import (
    DAYS_LIMIT,
    CustomerSales,
    Facts,
    Funnel,
    Generation,
    ProductSales,
    Ranking,
    Revenue,
    State,
    merged,
)
from shop.kernel import Money

T = TypeVar("T")

GRACE = 60.0  # seconds for which a replaced generation stays, so that every reader of it notices first
LOCK_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between two attempts to lock tables


class Analytics:
    """The use cases of analytics."""

    def __init__(self, db: Database, *, clock: Clock = SYSTEM, grace: float = GRACE) -> None:
        self._db = db
        self._clock = clock
        self._grace = grace

    async def lock(self, tx: Transaction, generation: int, order_ids: Sequence[str]) -> None:
        """Hold what a generation knows about these orders until the transaction ends."""
        await store.lock(tx, generation, order_ids)

    async def learn(self, tx: Transaction, generation: int, facts: Sequence[Facts]) -> None:
        """Add the facts of events to a generation."""
        await store.add(tx, generation, merged(facts))

    async def revenue(self) -> list[Revenue]:
        """Return the worth of confirmed orders, by currency, in all."""
        return await store.revenue(self._db, await store.current(self._db))

    async def revenue_by_day(self, *, since: date | None, until: date | None) -> list[Revenue]:
        """Return the same for each of some days, by default the last 31. Raises Unprocessable for too many."""
        last = until or self._clock.now().date()
        first = since or date.fromordinal(max(1, last.toordinal() - 30))
        if not 0 <= (last - first).days < DAYS_LIMIT:
            reason = f"must be at most {DAYS_LIMIT} days, in their order, up to until={last}"
            raise Unprocessable(errors=[FieldError("/query/since", reason)])
        return await store.revenue_by_day(self._db, await store.current(self._db), since=first, until=last)

    async def payments(self) -> list[tuple[Money, Money]]:
        """Return captured and refunded amounts, by currency."""
        return await store.payments(self._db, await store.current(self._db))

    async def top_products(
        self, ranking: Ranking, *, after: tuple[str, str, str] | None, limit: int
    ) -> list[ProductSales]:
        """Up to `limit` products behind that place, the best first."""
        return await store.top_products(self._db, await store.current(self._db), ranking, after=after, limit=limit)

    async def customers(self, *, after: tuple[UUID, str] | None, limit: int) -> list[CustomerSales]:
        """Up to `limit` customers behind that place, by id."""
        return await store.customers(self._db, await store.current(self._db), after=after, limit=limit)

    async def funnel(self) -> Funnel:
        """Return the progress of orders."""
        return await store.funnel(self._db, await store.current(self._db))

    async def generations(self) -> list[Generation]:
        """All generations that have tables, the newest first."""
        return await store.generations(self._db)

    async def live(self) -> list[Generation]:
        """Those that events go to."""
        return [found for found in await self.generations() if found.state is not State.RETIRED]

    async def rebuild(self) -> Generation:
        """Begin a new generation. Raises Conflict while one is being built."""
        opened = await self._with_locks(lambda tx: store.open_generation(tx, now=self._clock.now()))
        if opened is None:
            raise Conflict("rebuild-running", "A generation is being built already; wait until it is the current one.")
        return opened

    async def swap(self, generation: int) -> bool:
        """Let a generation that has caught up answer from now on; False if another process did that."""
        async with self._db.transaction() as tx:
            return await store.swap(tx, generation, now=self._clock.now())

    async def drop_retired(self) -> list[int]:
        """Drop generations that were replaced a while ago; returns which. Interrupted work is continued later."""
        dropped = []
        for generation in await store.retired(self._db, grace=self._grace):
            for table in store.TABLES:
                await self._with_locks(partial(store.drop_table, table=table, generation=generation))
            if await store.forget(self._db, generation):
                dropped.append(generation)
        return dropped

    async def _with_locks(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Work that locks tables which consumers use: rolled back and repeated if a lock isn't granted in time."""
        for pause in (*LOCK_PAUSES, None):
            try:
                async with self._db.transaction() as tx:
                    return await work(tx)
            except (Deadlock, LockTimeout) as error:
                if pause is None:
                    raise Unavailable("the tables are busy; nothing was changed", retry_after=1.0) from error
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")
