"""The backlog: rows in outboxes, and effects of confirmed orders that consumers still owe."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from backstay.db import Database, Queries

sql = Queries.load(__package__)
FOLLOWERS = {"inventory": sql.decided, "analytics": sql.told, "notifications": sql.mailed, "orders": sql.heard}
"""What each consumer has made of confirmed orders; `orders` hears of the reservations that come back."""
OUTBOXES = ("auth", "catalog", "orders", "payments", "inventory", "notifications")
INBOXES = ("orders", "inventory", "notifications", "analytics")


@dataclass(frozen=True, slots=True)
class Depths:
    """Rows waiting in all outboxes, events applied in all inboxes, and orders behind by consumer."""

    outbox: int
    inbox: int
    confirmed: int
    behind: Mapping[str, int]

    @property
    def caught_up(self) -> bool:
        """True if every consumer has done its part for every confirmed order, and nothing waits to be published."""
        return not self.outbox and not any(self.behind.values())

    def __str__(self) -> str:
        late = ", ".join(f"{name} {count:,}" for name, count in self.behind.items() if count)
        return f"{self.outbox:,} events unpublished; orders behind: {late or 'none'}"


class Gauge:
    """Connections to the databases of the backlog. An async context manager. Only reads."""

    def __init__(self, databases: Mapping[str, str]) -> None:
        self._open = AsyncExitStack()
        self._databases = {name: Database(f"gauge-{name}", dsn=dsn, max_size=1) for name, dsn in databases.items()}

    async def __aenter__(self) -> Self:
        for database in self._databases.values():
            await self._open.enter_async_context(database)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def look(self) -> Depths:
        """Return the present backlog. Confirmed orders are counted first, so that no consumer appears to be ahead."""
        confirmed = int(await self._databases["orders"].fetchval(sql.confirmed))
        counts = await asyncio.gather(*(self._databases[name].fetchval(text) for name, text in FOLLOWERS.items()))
        return Depths(
            outbox=await self._sum(sql.unpublished, OUTBOXES),
            inbox=await self._sum(sql.inbox, INBOXES),
            confirmed=confirmed,
            behind={name: max(0, confirmed - count) for name, count in zip(FOLLOWERS, counts, strict=True)},
        )

    async def unsettled(self) -> int:
        """Return the number of orders that wait for their payment, or for its reversal."""
        return int(await self._databases["orders"].fetchval(sql.unsettled))

    async def _sum(self, statement: str, names: tuple[str, ...]) -> int:
        return sum(await asyncio.gather(*(self._databases[name].fetchval(statement) for name in names)))
