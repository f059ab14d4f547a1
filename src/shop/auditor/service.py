"""Use cases of the auditor: follow what changes everywhere, compare what has come to rest, and keep the list.

A page of facts, the subjects that it touches and the cursor behind it are saved in one transaction; a comparison and
what it finds in another. So whoever dies anywhere, the next one goes on from what is committed. Nothing is compared
before every service has been read beyond the time at which it came to rest: an audit that sees only half says nothing.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta

from backstay import faults
from backstay.db import Database
from backstay.service import ServiceCallError
from backstay.tasks import gather_all
from backstay.telemetry.logs import get_logger
from shop.auditor import model, store
from shop.auditor.clients import ChangesPort
from shop.auditor.config import Settings
from shop.auditor.model import Feed, Finding, Summary

PAGES = 50  # pages of one feed in one run of the job at most
READ_TOGETHER = ((Feed.ORDERS,), (Feed.PAYMENTS, Feed.PROVIDER), (Feed.INVENTORY,), (Feed.NOTIFICATIONS,))
"""Feeds that are read one after the other: payments first, so that most entries of the provider find their order."""
BATCHES = 50  # batches of comparisons in one run of the job at most

log = get_logger()


@dataclass(frozen=True, slots=True)
class AuditorStatistics:
    """Unexplained amounts and units at the last measurement."""

    unexplained_cents: Mapping[str, int]
    """By currency: what the provider holds and shouldn't, or should hold and doesn't."""
    unexplained_units: int
    """Units that inventory holds and shouldn't, or should hold and doesn't."""
    open_findings: Mapping[str, int]
    """By kind."""
    waiting_cases: int
    """Subjects that are still to be compared."""
    feed_age: Mapping[str, float]
    """By feed: since it was last read to its end. Nothing is compared while one grows."""


class Auditor(AbstractAsyncContextManager["Auditor"]):
    """Compares orders, payments, the provider's ledger, stock and mails."""

    def __init__(self, db: Database, changes: ChangesPort, settings: Settings) -> None:
        self._db = db
        self._changes = changes
        self._settings = settings
        self._measured = AuditorStatistics({}, 0, {}, 0, {})

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close: what it works with is owned beside it."""

    def statistics(self) -> AuditorStatistics:
        """Return the result of the last `measure`."""
        return self._measured

    async def measure(self) -> None:
        """Count what is unexplained, for the metrics."""
        found = await self.summary()
        self._measured = AuditorStatistics(
            unexplained_cents=dict(found.cents),
            unexplained_units=found.units,
            open_findings=dict(found.open),
            waiting_cases=found.waiting,
            feed_age={state.feed.value: state.age for state in found.feeds},
        )

    async def summary(self) -> Summary:
        """Return what is unexplained, and the progress of reading every service."""
        return await store.summary(self._db)

    async def findings(
        self, *, since: datetime | None, resolved: bool, before: int | None, limit: int
    ) -> list[Finding]:
        """Up to `limit` findings before an id, the newest first; `resolved` shows also those that add up again."""
        return await store.findings(self._db, since=since, resolved=resolved, before=before, limit=limit)

    async def follow(self) -> int:
        """Read what has changed in every service, each on its own, also when one fails; the number of facts."""
        return sum(await gather_all(*(self._follow_all(*feeds) for feeds in READ_TOGETHER)))

    async def _follow_all(self, *feeds: Feed) -> int:
        return sum([await self._follow(feed) for feed in feeds])

    async def _follow(self, feed: Feed) -> int:
        read = 0
        try:
            for _ in range(PAGES):
                number, more = await self._read_page(feed)
                read += number
                if not more:
                    break
        except (ServiceCallError, ConnectionError, TimeoutError) as error:
            log.warning("auditor.feed_failed", feed=feed.value, error=f"{type(error).__name__}: {error}")
            await store.fail_feed(self._db, feed, f"{type(error).__name__}: {error}"[:500])
        return read

    async def _read_page(self, feed: Feed) -> tuple[int, bool]:
        """Read and keep one page; how many facts it had, and whether there are more."""
        since, started = await store.position(self._db, feed)
        page = await self._changes.read(feed, since, limit=self._settings.read_batch)
        await faults.point("auditor.follow.after-read")
        async with self._db.transaction() as tx:
            if not await store.lock_feed(tx, feed, since):
                return 0, False  # another instance reads it
            if page.items:
                rows = [model.row(fact) for fact in page.items]
                await store.save_facts(tx, feed, rows, tolerance=self._settings.tolerance)
            await store.move_feed(tx, feed, page.cursor, None if page.more else started)
            await faults.point("auditor.follow.before-commit")
        await faults.point("auditor.follow.after-commit")
        return len(page.items), page.more

    async def check(self) -> int:
        """Compare the subjects that are due; the number of them."""
        checked = 0
        for _ in range(BATCHES):
            number = await self._check_batch()
            checked += number
            if number < self._settings.check_batch:
                break
        return checked

    async def _check_batch(self) -> int:
        unsettled_after = timedelta(seconds=self._settings.unsettled_after)
        async with self._db.transaction() as tx:
            cases = await store.claim_cases(tx, limit=self._settings.check_batch)
            if not cases:
                return 0
            now = await store.now(tx)
            verdicts = {case.subject: model.examine(case, now, unsettled_after=unsettled_after) for case in cases}
            seen, resolved = await store.save_verdicts(tx, verdicts)
            await faults.point("auditor.check.before-commit")
        await faults.point("auditor.check.after-commit")
        for row in seen:
            if row["is_new"]:
                log.warning("auditor.finding_opened", subject=row["subject"], kind=row["kind"])
        for row in resolved:
            log.info("auditor.finding_resolved", subject=row["subject"], kind=row["kind"])
        return len(cases)
