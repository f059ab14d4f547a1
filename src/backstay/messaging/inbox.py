"""The memory that makes an effect happen once: one row per group and event, written in the handler's transaction."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from uuid import UUID

from backstay.db import Component, Database, Queries, Transaction

COMPONENT = Component("messaging", Path(__file__).parent / "migrations")
PRUNE_BATCH = 5000  # rows deleted by one statement

sql = Queries.load(__package__)


async def claim(tx: Transaction, group: str, ids: Sequence[UUID]) -> tuple[set[UUID], bool]:
    """Take these events for the group; returns those that were not taken before, and whether any key may be held.

    If another transaction is about to take one, this waits for its outcome.
    """
    rows = await tx.fetch(sql.claim, group, ids)
    # Whoever took the others may have parked them just now: then the answer about keys is older than that.
    held = 0 < len(rows) < len(ids) or any(row["held"] for row in rows)
    return {row["event_id"] for row in rows}, held


async def prune_inbox(db: Database, *, older_than: datetime) -> int:
    """Forget events handled before that moment (aware); returns how many.

    An event delivered again after it was forgotten is handled again: keep rows longer than anything is replayed.
    """
    pruned = 0
    while True:
        gone = int((await db.execute(sql.prune_inbox, older_than, PRUNE_BATCH)).split()[-1])
        pruned += gone
        if gone < PRUNE_BATCH:
            return pruned
