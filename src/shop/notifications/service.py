"""Use cases of notifications.

Sending is three steps, and no transaction is open while a mail server works: claim a batch for a while, hand over each
message, record what came of it together with the events.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import Self
from uuid import UUID

from backstay import faults
from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction
from backstay.outbox import Outbox
from backstay.telemetry.logs import get_logger
from shop.notifications import events, store
from shop.notifications.model import REFUNDED, Audited, Deferred, Due, Notice, Notification, Outcome, Refused, Sent
from shop.notifications.providers import MailDeferred, Mailer, MailRefused, MailUnavailable, Templates

log = get_logger()

BATCH = 20  # messages claimed at once
BATCHES = 50  # in one run of the job at most
LEASE = 60.0  # seconds; longer than a batch can take over a mailer's connections and its time-out


@dataclass(frozen=True, slots=True)
class NotificationsStatistics:
    """Messages that wait, how long the oldest has (seconds), and those refused for good."""

    pending: int
    oldest_age: float
    failed: int


class Notifications:
    """The use cases of notifications."""

    def __init__(
        self,
        db: Database,
        box: Outbox,
        mailer: Mailer,
        *,
        templates: Templates | None = None,
        clock: Clock = SYSTEM,
        batch: int = BATCH,
        lease: float = LEASE,
    ) -> None:
        self._db = db
        self._box = box
        self._mailer = mailer
        self._templates = templates or Templates()
        self._clock = clock
        self._batch = batch
        self._lease = lease
        self._measured = NotificationsStatistics(0, 0.0, 0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close: what it works with is owned beside it."""

    def statistics(self) -> NotificationsStatistics:
        """Return the result of the last `measure`."""
        return self._measured

    async def measure(self) -> None:
        """Count what is open, for the metrics."""
        pending, oldest, failed = await store.backlog(self._db)
        self._measured = NotificationsStatistics(pending, oldest, failed)

    async def page(
        self, customer_id: UUID, *, order_id: UUID | None, before: UUID | None, limit: int
    ) -> list[Notification]:
        """Up to `limit` of a customer's messages older than `before`, the newest first."""
        return await store.page(self._db, customer_id, order_id=order_id, before=before, limit=limit)

    async def audit(self, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
        """Messages about orders that changed after a position, for the auditor."""
        return await store.audit(self._db, after, limit=limit)

    async def learn_address(self, tx: Transaction, customer_id: UUID, *, email: str, name: str, at: datetime) -> None:
        """A customer has had this address since `at`: what waited for it can go out."""
        await store.save_address(tx, customer_id, email=email, name=name, at=at)

    async def notify(self, tx: Transaction, *notices: Notice) -> None:
        """Have messages sent; once per event and kind. Each waits while its customer's address isn't known."""
        await store.save(tx, notices, now=self._clock.now())

    async def order_cancelled(self, tx: Transaction, notice: Notice, reason: str) -> None:
        """Queue the mail about a cancellation, unless the mail about the refund covers it."""
        if reason != REFUNDED:
            await self.notify(tx, notice)

    async def send_due(self) -> int:
        """Send what is due, batch by batch, while there is more and a server takes it; returns how many were tried."""
        tried = 0
        for _ in range(BATCHES):
            batch = await store.claim(self._db, lease=self._lease, limit=self._batch)
            if not batch:
                break
            await faults.point("notifications.send.after-claim")
            outcomes = await asyncio.gather(*(self._send(due) for due in batch))
            await faults.point("notifications.send.before-record")
            await self._record(outcomes)
            tried += len(batch)
            if len(batch) < self._batch or any(isinstance(outcome, Deferred) for outcome in outcomes):
                break
        return tried

    async def _send(self, due: Due) -> Outcome:
        try:
            await self._mailer.send(self._templates.mail(due, at=self._clock.now()))
        except MailRefused as error:
            return Refused(due, str(error))
        except (MailDeferred, MailUnavailable) as error:
            return Deferred(due, str(error))
        except Exception as error:
            log.exception("notifications.send-failed", notification=str(due.notice.id))
            return Deferred(due, f"{type(error).__name__}: {error}")
        return Sent(due)

    async def _record(self, outcomes: list[Outcome]) -> None:
        now = self._clock.now()
        async with self._db.transaction() as tx:
            if sent := [outcome for outcome in outcomes if isinstance(outcome, Sent)]:
                notices = await store.mark_sent(tx, sent, now=now)
                await self._box.append(tx, *(events.sent(notice, at=now) for notice in notices))
            if refused := [outcome for outcome in outcomes if isinstance(outcome, Refused)]:
                await store.mark_failed(tx, refused)
            if deferred := [outcome for outcome in outcomes if isinstance(outcome, Deferred)]:
                await store.put_off(tx, deferred)
