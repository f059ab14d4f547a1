"""The payment provider: the port, and a sandbox that keeps its own books.

Every call is idempotent by its key, so the caller may repeat any of them after a crash. `cancel` is final: a charge
with a cancelled key is refused for ever.
"""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Protocol, Self, TypeVar

from backstay.db import Database, DatabaseError, Queries, Row
from backstay.errors import BackstayError
from shop.kernel import Money
from shop.payments.model import Changes, Entry, LedgerEntry, Outcome, Reply

SLOW = 8.0  # seconds that the sandbox takes to answer a `pm_card_slow`

DECLINES = {"pm_card_declined": "card_declined", "pm_card_insufficient_funds": "insufficient_funds"}

sql = Queries.load(__package__)
T = TypeVar("T")


class ProviderError(BackstayError):
    """The payment provider gave no understandable answer; the outcome is unknown."""


class PaymentProvider(Protocol):
    """A payment provider. Every call raises ProviderError when the outcome is unknown."""

    @property
    def methods(self) -> frozenset[str]:
        """The payment methods it knows."""

    async def charge(self, key: str, amount: Money, method: str) -> Reply:
        """Take the money: captured, declined, or cancelled if `cancel` was there first."""

    async def find(self, key: str) -> Reply:
        """Return the state of the charge: captured, declined, cancelled or unknown."""

    async def cancel(self, key: str) -> Reply:
        """Never charge this key: cancelled, or captured or declined if it is too late."""

    async def refund(self, key: str, charge_key: str, amount: Money) -> Reply:
        """Refund a captured charge: refunded, also if it was refunded before, whatever the cause."""

    async def changes(self, since: str | None, *, limit: int) -> Changes:
        """Entries of its ledger after a cursor of its own (None: from the beginning), the oldest first.

        None is missed: an entry that becomes visible later has a later place.
        """


class Sandbox:
    """A provider without a bank. Its books are on a connection of their own, so they survive whatever we do to ours.

    The method decides the answer: `pm_card_declined` and `pm_card_insufficient_funds` are declined, `pm_card_slow`
    is captured but answered `slow` seconds later, `pm_card_error_then_ok` fails once for each key, and `pm_card_ok`
    is captured.
    """

    methods = frozenset({"pm_card_ok", "pm_card_slow", "pm_card_error_then_ok", *DECLINES})

    def __init__(self, *, dsn: str | None = None, slow: float = SLOW, connections: int = 3) -> None:
        self._books = Database("sandbox", dsn=dsn, max_size=connections)
        self._slow = slow

    def use_dsn(self, dsn: str) -> None:
        """Set the database of the books; only before entering."""
        self._books.use_dsn(dsn)

    async def __aenter__(self) -> Self:
        await self._books.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._books.__aexit__(kind, error, trace)

    async def charge(self, key: str, amount: Money, method: str) -> Reply:
        reason = DECLINES.get(method)
        first = "declined" if reason else "failing" if method == "pm_card_error_then_ok" else "captured"
        charge = self._books.fetchrow(sql.sandbox_charge, key, amount.amount, amount.currency, first, reason)
        row = await _kept(charge)
        if row is None:
            raise ProviderError(f"the sandbox has charge {key} with another amount than {amount}")
        if row["status"] == "failing":
            raise ProviderError("the sandbox failed, as pm_card_error_then_ok does at first")
        if method == "pm_card_slow":
            await asyncio.sleep(self._slow)
        return _reply(row)

    async def find(self, key: str) -> Reply:
        return _reply(await _kept(self._books.fetchrow(sql.sandbox_find, key)))

    async def cancel(self, key: str) -> Reply:
        return _reply(await _kept(self._books.fetchrow(sql.sandbox_cancel, key)))

    async def refund(self, key: str, charge_key: str, amount: Money) -> Reply:
        refund = self._books.fetchval(sql.sandbox_refund, key, charge_key, amount.amount, amount.currency)
        if not await _kept(refund):
            raise ProviderError(f"the sandbox has no captured charge {charge_key} of {amount} to refund")
        return Reply(Outcome.REFUNDED)

    async def changes(self, since: str | None, *, limit: int) -> Changes:
        position, _, key = (since or "0 ").partition(" ")
        rows = await _kept(self._books.fetch(sql.sandbox_changes, position, key, limit + 1))
        shown = rows[:limit]
        cursor = f"{shown[-1]['position']} {shown[-1]['key']}" if shown else since
        return Changes(tuple(_entry(row) for row in shown), cursor, len(rows) > limit)


async def _kept(entry: Awaitable[T]) -> T:
    try:
        return await entry
    except DatabaseError as error:
        raise ProviderError("the sandbox can't reach its books") from error


def _entry(row: Row) -> LedgerEntry:
    return LedgerEntry(
        entry=Entry(row["entry"]),
        key=row["key"],
        charge=row["charge"],
        amount=Money(row["amount"], row["currency"]),
        at=row["at"],
    )


def _reply(row: Row | None) -> Reply:
    if row is None or row["status"] == "failing":
        return Reply(Outcome.UNKNOWN)
    return Reply(Outcome(row["status"]), row["reason"])
