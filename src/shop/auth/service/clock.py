"""The time that all instances of auth agree on."""

from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from backstay.clock import SYSTEM, Clock
from backstay.db import Database
from shop.auth import store


class SharedClock:
    """The machine's clock, corrected by its distance from the database's.

    Sessions, graces, blocks and keys are written by one instance and judged by another; whose clock is wrong would end
    sessions of the others, or block logins for as long as it is ahead.
    """

    def __init__(self, db: Database, clock: Clock = SYSTEM) -> None:
        self._db = db
        self._clock = clock
        self._ahead = timedelta()

    async def __aenter__(self) -> Self:
        await self.measure()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def measure(self) -> None:
        """Read the database's time; half of the round trip counts as passed."""
        asked, began = self._clock.now(), self._clock.monotonic()
        there = await store.now(self._db)
        self._ahead = asked + timedelta(seconds=(self._clock.monotonic() - began) / 2) - there

    @property
    def ahead(self) -> float:
        """Seconds by which this machine's clock is ahead of the database's."""
        return self._ahead.total_seconds()

    def now(self) -> datetime:
        """Return the current time by the database's clock, aware, in UTC."""
        return self._clock.now() - self._ahead

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
        return self._clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await self._clock.sleep(seconds)

    def wait(self, seconds: float) -> None:
        """Block this thread for `seconds`."""
        self._clock.wait(seconds)
