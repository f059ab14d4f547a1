"""Use cases of payments. The intent is committed, then the provider is called, then its answer is committed.

No call to the provider runs inside a transaction, and each is idempotent by its key: so whoever dies or doubles
anywhere in between, the next one (a repeated request or the job) goes on from what is committed.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from backstay import faults
from backstay import resilience as r
from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction
from backstay.ids import uuid7
from backstay.outbox import Outbox
from backstay.service import FieldError, NotFound, Problem, Unprocessable
from backstay.telemetry.logs import get_logger
from shop.contracts.payments import ChargeRequest, PaymentView
from shop.payments import events, store
from shop.payments.config import Settings
from shop.payments.model import (
    ANSWERS,
    NOT_ASKED,
    OUTSIDE,
    Attempt,
    Audited,
    Changes,
    Entry,
    LedgerEntry,
    Outcome,
    Payment,
    Reply,
    Status,
    Step,
    charge_key,
    refund_key,
    refunded_in_full,
    retry_after,
)
from shop.payments.providers import PaymentProvider, ProviderError

T = TypeVar("T")

ALONE = frozenset({Status.CAPTURED, Status.DECLINED, Status.VOIDED})
"""States that one statement records; those of refunds have a row of their own besides."""

log = get_logger()


@dataclass(frozen=True, slots=True)
class PaymentsStatistics:
    """Payments that wait for the provider, and the age of the oldest in seconds, when last measured."""

    open_payments: int
    oldest_open_age: float


class Payments(AbstractAsyncContextManager["Payments"]):
    """Charges, finds, voids and refunds payments, and finishes interrupted ones."""

    def __init__(
        self, db: Database, box: Outbox, provider: PaymentProvider, settings: Settings, *, clock: Clock = SYSTEM
    ) -> None:
        self._db = db
        self._box = box
        self._provider = provider
        self._settings = settings
        self._clock = clock
        self._ask = r.Bulkhead(settings.provider_calls, name="provider")(self._ask_provider)
        self._measured = PaymentsStatistics(0, 0.0)

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close: what it works with is owned beside it."""

    def statistics(self) -> PaymentsStatistics:
        """Return the result of the last `measure`."""
        return self._measured

    async def measure(self) -> None:
        """Count what is open, for the metrics."""
        number, oldest = await store.open_payments(self._db)
        self._measured = PaymentsStatistics(number, oldest)

    async def charge(self, request: ChargeRequest) -> PaymentView:
        """Charge an order once; a repeat gives the payment as it is, or goes on with it if its caller is gone.

        Raises:
            Unprocessable: nothing to charge, an unknown method, or the order is being paid with another amount.
            Problem: 502, the provider gave no answer; asking again is safe.
        """
        if errors := list(self._flaws(request)):
            raise Unprocessable(errors=errors)
        now = self._clock.now()
        payment = Payment.intend(
            uuid7(),
            order_id=request.order_id,
            customer_id=request.customer_id,
            amount=request.amount,
            method=request.method,
            at=now,
        )
        await faults.point("payments.charge.before-intent-commit")
        ours = await store.intend(self._db, payment, self._settings.stale_after)
        await faults.point("payments.charge.after-intent-commit")
        if not ours:
            payment, ours = await self._take_up(request)
        try:
            return events.view(await self._pursue(payment, NOT_ASKED) if ours else payment)
        except ProviderError as error:
            detail = "the payment provider gave no answer; the payment stays open"
            raise Problem(502, "payment-provider-failed", "Payment provider failed", detail) from error

    async def find(self, order_id: UUID) -> PaymentView:
        """Return the payment of an order, or its tombstone. Raises NotFound if there is none."""
        return events.view(_known(await store.find(self._db, order_id), order_id))

    async def void(self, order_id: UUID, reason: str) -> PaymentView:
        """See to it that the order is not paid: never charged, or refunded; also if the charge comes later."""
        tombstone = Payment.tombstone(uuid7(), order_id=order_id, reason=reason, at=self._clock.now())
        await faults.point("payments.void.before-intent-commit")
        if await store.bury(self._db, tombstone):
            await faults.point("payments.void.after-intent-commit")
            return events.view(tombstone)
        return await self._give_back("void", order_id, reason)

    async def refund(self, order_id: UUID, reason: str) -> PaymentView:
        """Refund the order, once, however often and by whomever requested. Raises NotFound without a payment."""
        await faults.point("payments.refund.before-intent-commit")
        return await self._give_back("refund", order_id, reason)

    async def resolve_stale(self) -> int:
        """Continue open payments whose lease has expired; returns their number."""
        lease, limit = self._settings.stale_after, self._settings.stale_batch
        stale = await store.claim_stale(self._db, lease=lease, limit=limit)
        results = await asyncio.gather(
            *(self._pursue(payment, failures=failures) for payment, failures in stale), return_exceptions=True
        )
        for (payment, _), result in zip(stale, results, strict=True):
            if isinstance(result, BaseException):
                log.warning("payments.still_open", order_id=str(payment.order_id), error=str(result))
        return len(stale)

    async def audit(self, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
        """Payments that changed after a position, for the auditor."""
        return await store.audit(self._db, after, limit=limit)

    async def ledger(self, since: str | None, *, limit: int) -> Changes:
        """Entries of the provider's ledger after a cursor of its own, for the auditor.

        Raises:
            Problem: 502, the provider gave no answer.
        """
        try:
            return await self._changes(since, limit)
        except ProviderError as error:
            detail = "the payment provider gave no answer; ask again with the same cursor"
            raise Problem(502, "payment-provider-failed", "Payment provider failed", detail) from error

    async def follow_provider(self) -> int:
        """Record the refunds that were made at the provider, page after page; the number of payments they moved.

        Of several instances one follows; a page is recorded together with the cursor behind it.
        """
        moved = 0
        while True:
            since = await store.provider_cursor(self._db)
            changes = await self._changes(since, self._settings.changes_batch)
            await faults.point("payments.provider.after-changes")
            if changes.cursor == since:
                return moved
            async with self._db.transaction() as tx:
                if not await store.lock_provider_cursor(tx, since):
                    return moved
                moved += await self._record_refunds(tx, changes.entries)
                await store.move_provider_cursor(tx, changes.cursor)
                await faults.point("payments.changes.before-result-commit")
            await faults.point("payments.changes.after-result-commit")
            if not changes.more:
                return moved

    async def _changes(self, since: str | None, limit: int) -> Changes:
        try:
            async with asyncio.timeout(self._settings.provider_timeout):
                return await self._provider.changes(since, limit=limit)
        except TimeoutError as error:
            raise ProviderError(f"no changes within {self._settings.provider_timeout:g} s") from error

    async def _record_refunds(self, tx: Transaction, entries: Sequence[LedgerEntry]) -> int:
        """Move the payments whose whole amount went back; a part of it is the auditor's to report."""
        refunds = {entry.payment_id: entry for entry in entries if entry.entry is Entry.REFUNDED and entry.payment_id}
        moved = 0
        for payment_id, order_id in await store.still_charged(tx, [each for each in refunds if each]):
            before, _ = _known(await store.lock(tx, order_id), order_id)
            entry = refunds[payment_id]
            if not refunded_in_full(before, entry):
                log.warning("payments.partial_refund", order_id=str(order_id), amount=str(entry.amount))
                continue
            ours = entry.key == refund_key(payment_id)
            reply = Reply(Outcome.REFUNDED, before.reason if ours else OUTSIDE)
            while (after := before.replied(reply)) is not before:
                await self._move(tx, before, after, None, self._clock.now(), refund=entry.key)
                before = after
                moved += after.status is Status.REFUNDED
        return moved

    def _flaws(self, request: ChargeRequest) -> Iterator[FieldError]:
        if request.amount.amount <= 0:
            yield FieldError("/amount/amount", "must be more than 0")
        if request.method not in self._provider.methods:
            yield FieldError("/method", f"must be one of {', '.join(sorted(self._provider.methods))}")

    async def _take_up(self, request: ChargeRequest) -> tuple[Payment, bool]:
        """Return the payment that is there, and whether it is now ours to go on with."""
        async with self._db.transaction() as tx:
            payment, free = _known(await store.lock(tx, request.order_id), request.order_id)
            if not payment.same_amount(request.amount):
                reason = f"order {request.order_id} is being paid with {payment.amount}"
                raise Unprocessable(errors=[FieldError("/amount", reason)])
            ours = payment.next_step(NOT_ASKED) is Step.CHARGE and free
            if ours:
                await store.call(tx, payment.id, self._settings.stale_after)
        return payment, ours

    async def _give_back(self, verb: str, order_id: UUID, reason: str) -> PaymentView:
        now = self._clock.now()
        async with self._db.transaction() as tx:
            before, _ = _known(await store.lock(tx, order_id), order_id)
            after = before.unwant(reason)
            if after is not before:
                await self._move(tx, before, after, None, now)
        await faults.point(f"payments.{verb}.after-intent-commit")
        try:
            return events.view(await self._pursue(after))
        except (ProviderError, r.Rejected):
            return events.view(after)  # the decision stands; the job carries it out

    async def _pursue(self, payment: Payment, known: Reply | None = None, *, failures: int = 0) -> Payment:
        """Call the provider, and commit its answers, until nothing is open."""
        while (step := payment.next_step(known)) is not None:
            started = time.perf_counter()
            try:
                known = await self._ask(step, payment)
            except (ProviderError, r.Rejected) as error:
                attempt = Attempt(step=step, outcome="error", reason=str(error), took=time.perf_counter() - started)
                await store.rest(self._db, payment.id, attempt, self._clock.now(), retry_after(failures))
                raise
            took = time.perf_counter() - started
            attempt = Attempt(step=step, outcome=known.outcome, reason=known.reason, took=took)
            payment = await self._record(payment, attempt, known)
        return payment

    async def _ask_provider(self, step: Step, payment: Payment) -> Reply:
        """Send one request to the provider, within a time of its own: ending it early would lose the answer."""
        try:
            async with asyncio.timeout(self._settings.provider_timeout):
                await faults.point(f"payments.provider.before-{step}")
                reply = await self._question(step, payment)
                await faults.point(f"payments.provider.after-{step}")
        except TimeoutError as error:
            raise ProviderError(f"no answer to {step} within {self._settings.provider_timeout:g} s") from error
        if reply.outcome not in ANSWERS[step]:
            raise ProviderError(f"{reply.outcome} is no answer to {step}")
        return reply

    async def _question(self, step: Step, payment: Payment) -> Reply:
        key = charge_key(payment.id)
        if step is Step.FIND:
            return await self._provider.find(key)
        if step is Step.CANCEL:
            return await self._provider.cancel(key)
        assert payment.amount is not None
        assert payment.method is not None
        if step is Step.REFUND:
            return await self._provider.refund(refund_key(payment.id), key, payment.amount)
        return await self._provider.charge(key, payment.amount, payment.method)

    async def _record(self, before: Payment, attempt: Attempt, reply: Reply) -> Payment:
        """Commit an answer; if the payment was changed meanwhile, apply the answer to the changed one."""
        after = before.replied(reply)
        if after is before:
            return before
        now = self._clock.now()
        if after.status in ALONE:
            await faults.point(f"payments.{attempt.step}.before-result-commit")
            async with self._db.statement() as tx:
                moved = await self._move(tx, before, after, attempt, now)
            if moved:
                await faults.point(f"payments.{attempt.step}.after-result-commit")
                return after
        async with self._db.transaction() as tx:
            if not await self._move(tx, before, after, attempt, now):
                before, _ = _known(await store.lock(tx, before.order_id), before.order_id)
                after = before.replied(reply)
                if after is not before:
                    await self._move(tx, before, after, attempt, now)
            await faults.point(f"payments.{attempt.step}.before-result-commit")
        await faults.point(f"payments.{attempt.step}.after-result-commit")
        return after

    async def _move(
        self,
        tx: Transaction,
        before: Payment,
        after: Payment,
        attempt: Attempt | None,
        now: datetime,
        *,
        refund: str | None = None,
    ) -> bool:
        """Replace `before` by `after`, with its event and its refund (under the key `refund`, by default our own)."""
        event = events.published(before, after, now)
        told = self._box.rows(*([event] if event else []), version=after.version)
        if not await store.move(tx, before, after, attempt, now, self._settings.stale_after, told):
            return False
        self._box.appended(tx)
        if after.status in (Status.REFUNDING, Status.REFUNDED):
            await store.request_refund(tx, after, refund or refund_key(after.id), now)
        if after.status is Status.REFUNDED:
            await store.close_refund(tx, after.id, now)
        return True


def _known(found: T | None, order_id: UUID) -> T:
    if found is None:
        raise NotFound(f"order {order_id} has no payment")
    return found
