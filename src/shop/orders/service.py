"""Use cases of orders.

State, timeline, outbox and the stored answer of a checkout change in one transaction, with the order's row locked.
Every way an order can move goes through `_change`; no call to payments runs inside a transaction.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from backstay import faults
from backstay import resilience as r
from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction, ahead
from backstay.ids import uuid7
from backstay.outbox import Outbox, OutboxRows
from backstay.service import (
    Answer,
    Conflict,
    FieldError,
    IdempotencyKey,
    NotFound,
    Unavailable,
    Unprocessable,
    idempotency,
)
from backstay.telemetry.logs import get_logger
from shop.contracts.inventory import InventoryRejected, InventoryReserved, InventoryUpdated
from shop.contracts.notifications import NotificationSent
from shop.contracts.orders import OrderView, TimelineEntry
from shop.contracts.payments import PaymentCaptured, PaymentDeclined, PaymentEvent, PaymentRefunded
from shop.contracts.products import Product as CatalogProduct
from shop.orders import events, model, store
from shop.orders.clients import PaymentsPort
from shop.orders.config import Settings
from shop.orders.model import (
    Audited,
    Change,
    Compensation,
    NewOrder,
    Order,
    Outcome,
    Product,
    Reason,
    Result,
    Status,
    Step,
    Unsettled,
)

T = TypeVar("T")
Decision = Callable[[Order, datetime], Change]
News = InventoryReserved | InventoryRejected | PaymentEvent | NotificationSent

FINAL = frozenset({Result.VOIDED, Result.DECLINED, Result.REFUNDED})
HAPPENED = {
    Status.PAYMENT_PENDING: "payment pending",
    Status.CONFIRMED: "order confirmed",
    Status.CANCELLED: "order cancelled",
}

COME_AGAIN = 1.0  # seconds after which a checkout that found no room may find some

log = get_logger()


@dataclass(frozen=True, slots=True)
class Changed:
    """An order after a use case; `answer` is that of its checkout, if this was what it waited for."""

    order: Order
    answer: Answer[OrderView] | None


class _Door:
    """Bounds concurrent checkouts; those beyond are refused at once, with nothing done."""

    def __init__(self, places: int) -> None:
        self._free = places

    async def __aenter__(self) -> None:
        if self._free <= 0:
            detail = "too many checkouts at this moment; nothing was ordered"
            raise Unavailable(detail, retry_after=COME_AGAIN, headers={r.STOP_HEADER: "1"})
        self._free -= 1

    async def __aexit__(self, *_: object) -> None:
        self._free += 1


class Orders(AbstractAsyncContextManager["Orders"]):
    """Places, settles, cancels and shows orders."""

    def __init__(
        self, db: Database, box: Outbox, payments: PaymentsPort, settings: Settings, *, clock: Clock = SYSTEM
    ) -> None:
        self._db = db
        self._box = box
        self._payments = payments
        self._settings = settings
        self._clock = clock
        self._measured = store.Backlog(0, 0.0, 0, 0.0)
        self._door = _Door(settings.checkouts)

    async def __aexit__(self, *_: object) -> None:
        """Nothing to close: what it works with is owned beside it."""

    def statistics(self) -> store.Backlog:
        """Return the result of the last `measure`."""
        return self._measured

    # -- by the customer --------------------------------------------------------------------------------------

    async def checkout(self, customer_id: UUID, wanted: NewOrder, key: IdempotencyKey) -> Answer[OrderView]:
        """Place an order and pay for it; a repeat of the key gets the first answer, byte for byte.

        Raises:
            Unprocessable: the request breaks rules; every field is named.
            Conflict: out of stock, price changed, or the first request with this key still runs.
        """
        until = time.monotonic() + self._settings.checkout_deadline
        _allow(lambda: model.check(wanted, self._settings.payment_methods))
        try:
            with r.deadline(self._settings.checkout_deadline):
                async with asyncio.timeout(self._settings.checkout_deadline), self._door:
                    return await self._carry_out(customer_id, wanted, key, until - self._settings.checkout_reserve)
        except TimeoutError as error:
            detail = "there was no time left to say what became of the order; ask again with the same key"
            raise Unavailable(detail, retry_after=COME_AGAIN) from error

    async def cancel(self, customer_id: UUID, order_id: UUID) -> OrderView:
        """Give an order up, also a confirmed one, also while payments is down; a cancelled one stays as it is."""

        def decide(order: Order, at: datetime) -> Change:
            _own(order, customer_id)
            return model.cancel(order, at, reason=Reason.CUSTOMER)

        async with self._db.transaction() as tx:
            changed = await self._change(tx, order_id, decide, by="customer")
            await faults.point("orders.cancel.before-commit")
        await faults.point("orders.cancel.after-commit")
        return events.view(_own(changed.order if changed else None, customer_id))

    async def find(self, customer_id: UUID, order_id: UUID) -> OrderView:
        """Return one of the customer's orders; raises NotFound for others."""
        return events.view(_own(await store.find(self._db, order_id), customer_id))

    async def page(
        self, customer_id: UUID, *, before: UUID | None, status: Status | None, limit: int
    ) -> tuple[list[OrderView], UUID | None]:
        """Return the customer's orders, newest first, and after which one the next page starts."""
        found = await store.page(self._db, customer_id, before=before, status=status, limit=limit + 1)
        shown = found[:limit]
        return [events.view(order) for order in shown], shown[-1].id if len(found) > limit else None

    async def timeline(self, customer_id: UUID, order_id: UUID) -> list[TimelineEntry]:
        """Return the timeline of one of the customer's orders, by all services; raises NotFound for others."""
        _own(await store.find(self._db, order_id), customer_id)
        steps = await store.timeline(self._db, order_id)
        return [TimelineEntry(at=s.at, service=s.service, what=s.what, details=dict(s.details)) for s in steps]

    async def audit(self, after: tuple[int, UUID], *, limit: int) -> list[tuple[tuple[int, UUID], Audited]]:
        """Orders that changed after a position, for the auditor."""
        return await store.audit(self._db, after, limit=limit)

    # -- by time ----------------------------------------------------------------------------------------------

    async def reconcile(self) -> int:
        """Reconcile all unsettled orders that are due; returns their number."""
        settings, looked_after = self._settings, 0
        while True:
            await faults.point("orders.reconcile.before-claim")
            due = await store.claim_due(
                self._db, limit=settings.batch, first=settings.first_check, last=settings.last_check
            )
            await faults.point("orders.reconcile.after-claim")
            await self._few_at_once(self._look_after, due)
            looked_after += len(due)
            if len(due) < settings.batch:
                return looked_after

    async def compensate(self) -> int:
        """Undo payments of cancelled orders, as far as payments answers; the number tried."""
        settings = self._settings
        await faults.point("orders.compensation.before-claim")
        due = await store.claim_compensations(
            self._db, limit=settings.batch, first=settings.first_check, last=settings.last_check
        )
        await faults.point("orders.compensation.after-claim")
        await self._few_at_once(self._undo, due)
        return len(due)

    async def measure(self) -> None:
        """Count what has not ended yet, for the metrics."""
        self._measured = await store.backlog(self._db)

    # -- by events; the caller's transaction -------------------------------------------------------------------

    async def product_changed(self, tx: Transaction, event: CatalogProduct) -> None:
        """Keep our copy of the catalog, unless it knows a newer version."""
        await store.upsert_product(tx, Product(event.sku, event.name, event.price, event.available, event.version))

    async def stock_told(
        self, tx: Transaction, news: Sequence[InventoryUpdated | InventoryReserved], ids: Sequence[UUID]
    ) -> None:
        """Keep the newest hints of stock, and note for which orders inventory holds the units."""
        hints: dict[str, tuple[int, int]] = {}
        steps = []
        for event, event_id in zip(news, ids, strict=True):
            if isinstance(event, InventoryReserved):
                lines = [{"sku": line.sku, "quantity": line.quantity} for line in event.lines]
                steps += self._steps(event, event_id, "inventory", "stock reserved", lines=lines)
            elif event.version >= hints.get(event.sku, (0, 0))[1]:
                hints[event.sku] = (event.available, event.version)
        if hints:
            await store.upsert_stock(tx, hints)
        await store.add_steps(tx, steps)

    async def stock_rejected(self, tx: Transaction, event: InventoryRejected, event_id: UUID) -> None:
        """Inventory can't serve the order: it ends here, and its money goes back."""
        missing = [{"sku": m.sku, "requested": m.requested, "available": m.available} for m in event.missing]
        await store.add_steps(tx, self._steps(event, event_id, "inventory", "stock rejected", missing=missing))
        await self._change(tx, event.order_id, model.reject, by="inventory")

    async def payments_captured(self, tx: Transaction, news: Sequence[PaymentCaptured], ids: Sequence[UUID]) -> None:
        """Settle captured payments; mostly the checkouts themselves have done so before."""
        steps = [self._paid(event, event_id, "payment captured") for event, event_id in zip(news, ids, strict=True)]
        await store.add_steps(tx, [step for each in steps for step in each])
        confirmed = await store.confirmed(tx, [event.order_id for event in news])
        for event in news:
            if event.order_id not in confirmed:
                outcome = Outcome(result=Result.CAPTURED, payment_id=event.payment_id)
                await self.settle(tx, event.order_id, outcome, by="event")

    async def payment_declined(self, tx: Transaction, event: PaymentDeclined, event_id: UUID) -> None:
        """There will be no money."""
        await store.add_steps(tx, self._paid(event, event_id, "payment declined", reason=event.reason))
        outcome = Outcome(result=Result.DECLINED, payment_id=event.payment_id, reason=event.reason)
        await self.settle(tx, event.order_id, outcome, by="event")

    async def payment_refunded(self, tx: Transaction, event: PaymentRefunded, event_id: UUID) -> None:
        """The money went back: nothing is left to undo, and an order that still counted on it ends."""
        await store.add_steps(tx, self._paid(event, event_id, "payment refunded", reason=event.reason))
        await store.close_compensations(tx, event.order_id, Result.REFUNDED)
        outcome = Outcome(result=Result.REFUNDED, payment_id=event.payment_id)
        await self.settle(tx, event.order_id, outcome, by="event")

    async def mails_sent(self, tx: Transaction, news: Sequence[NotificationSent], ids: Sequence[UUID]) -> None:
        """Mails went out; those about an order are in its timeline."""
        steps = [
            self._steps(event, event_id, "notifications", "mail sent", kind=event.kind)
            for event, event_id in zip(news, ids, strict=True)
        ]
        await store.add_steps(tx, [step for each in steps for step in each])

    async def settle(
        self,
        tx: Transaction,
        order_id: UUID,
        outcome: Outcome,
        *,
        by: str,
        took: float | None = None,
    ) -> Changed | None:
        """Settle the order by the outcome of its payment, from the call's answer, an event or the reconciler."""
        return await self._change(tx, order_id, lambda o, at: model.settle(o, outcome, at), by=by, details=_timed(took))

    lock_orders = staticmethod(store.lock_all)
    lock_open_orders = staticmethod(store.lock_open)
    lock_products = staticmethod(store.lock_products)
    lock_stock = staticmethod(store.lock_stock)

    # -- how ----------------------------------------------------------------------------------------------------

    async def _carry_out(
        self, customer_id: UUID, wanted: NewOrder, key: IdempotencyKey, until: float
    ) -> Answer[OrderView]:
        """Save, charge, settle; payments may take until then."""
        order = await self._begin(customer_id, wanted, key)
        if isinstance(order, Answer):
            return order
        await faults.point("orders.checkout.after-save")
        with r.deadline(max(until - time.monotonic(), 0.0)):
            outcome, took = await self._charge(order)
        with ahead():
            return await self._answer(order, outcome, took)

    async def _begin(self, customer_id: UUID, wanted: NewOrder, key: IdempotencyKey) -> Order | Answer[OrderView]:
        """Return the order to go on with, or the answer that its key has already."""
        with r.deadline(self._settings.checkout_patience):  # for a connection; a statement under way is never cut short
            products, known = await store.offered(self._db, [line.sku for line in wanted.lines], key)
            order = None if known else await self._place(customer_id, wanted, products, key)
            return order or await self._repeated(wanted, key)

    async def _place(
        self, customer_id: UUID, wanted: NewOrder, products: Mapping[str, Product], key: IdempotencyKey
    ) -> Order | None:
        """Return the new order, saved; None if its key is known, and nothing saved."""
        lines, total = _allow(lambda: model.price(wanted, products))
        now = self._clock.now()
        order = Order(
            id=uuid7(),
            customer_id=customer_id,
            lines=lines,
            total=total,
            payment_method=wanted.payment_method,
            created_at=now,
            updated_at=now,
        )
        step = Step(at=now, service="orders", what="order created", details={"total": total, "lines": len(lines)})
        told = self._box.rows(events.published(None, order), version=order.version)
        claim = key.arguments(wanted, order.id, self._settings.checkout_locked_for)
        await faults.point("orders.checkout.before-save")
        async with self._db.statement() as tx:
            self._box.appended(tx)
            return order if await store.place(tx, order, step, self._settings.first_check, told, claim) else None

    async def _repeated(self, wanted: NewOrder, key: IdempotencyKey) -> Order | Answer[OrderView]:
        """Return what a known key leads to: the stored answer, or the order of a checkout that was interrupted."""
        mine = uuid7()
        async with self._db.transaction() as tx:
            first = await key.claim(tx, wanted, operation_id=mine, locked_for=self._settings.checkout_locked_for)
            if first is not None:
                return first
            if key.operation_id == mine or key.operation_id is None:  # forgotten in this very moment
                raise Conflict("request-in-progress", "ask again", headers={"Retry-After": "1"})
            return await self._known(tx, key.operation_id)

    async def _charge(self, order: Order) -> tuple[Outcome, float]:
        started = time.perf_counter()
        await faults.point("orders.payment.before-call")
        outcome = await self._payments.charge(order)
        await faults.point("orders.payment.after-call")
        return outcome, time.perf_counter() - started

    async def _answer(self, order: Order, outcome: Outcome, took: float) -> Answer[OrderView]:
        """Settle, and send what is stored: by this checkout, or by an earlier settlement."""
        if order.status is Status.CREATED and (kept := await self._settle_at_once(order, outcome, took)) is not None:
            await faults.point("orders.settle.after-commit")
            return kept
        async with self._db.transaction() as tx:
            settled = await self.settle(tx, order.id, outcome, by="checkout", took=took)
            kept = (settled and settled.answer) or await idempotency.stored(tx, order.id)
            await faults.point("orders.settle.before-commit")
        await faults.point("orders.settle.after-commit")
        if kept is None:
            raise RuntimeError(f"order {order.id} left `created` without an answer")
        return kept

    async def _settle_at_once(self, order: Order, outcome: Outcome, took: float) -> Answer[OrderView] | None:
        """Settle an unchanged order in one statement. None, and nothing done, if it was changed meanwhile."""
        change = model.settle(order, outcome, self._clock.now())
        if change.compensation is not None:
            return None  # a second statement: the transaction of `settle` writes both
        step, told = self._record(order, change, {"by": "checkout", **_timed(took)})
        ours = idempotency.to_keep(events.answer(change.order, change.note))
        await faults.point("orders.settle.before-commit")
        async with self._db.statement() as tx:
            self._box.appended(tx)
            moved, kept = await store.settle(tx, change.order, step, told, ours)
        if moved and not kept:
            return await idempotency.stored(self._db, order.id) or ours
        return ours if moved else None

    async def _change(
        self,
        tx: Transaction,
        order_id: UUID,
        decide: Decision,
        *,
        by: str,
        details: Mapping[str, Any] | None = None,
    ) -> Changed | None:
        """Lock an order, decide, and write down everything that follows; None if there is no such order."""
        order = await store.lock(tx, order_id)
        if order is None:
            log.warning("orders.unknown", order_id=str(order_id), by=by)
            return None
        change = decide(order, self._clock.now())
        answer = None
        if change.order is not order:
            step, told = self._record(order, change, {"by": by, **(details or {})})
            self._box.appended(tx)
            if not await store.move(tx, change.order, step, told):
                raise RuntimeError(f"order {order.id} moved although its row was locked")
            if order.status is Status.CREATED:
                answer = await idempotency.answer(tx, order_id, events.answer(change.order, change.note))
        if change.compensation is not None:
            await store.compensate(tx, order_id, change.compensation, change.order.reason or "cancelled")
        return Changed(change.order, answer)

    def _record(self, before: Order, change: Change, details: dict[str, Any]) -> tuple[Step, OutboxRows]:
        """Return the line of the timeline and the event that belong to a change."""
        told = self._box.rows(events.published(before, change.order), version=change.order.version)
        return _step(change, details), told

    def _paid(self, event: PaymentEvent, event_id: UUID, what: str, **more: Any) -> list[tuple[UUID, Step]]:
        details = {"payment_id": event.payment_id, "amount": event.amount, **more}
        return self._steps(event, event_id, "payments", what, **details)

    def _steps(self, event: News, event_id: UUID, service: str, what: str, **details: Any) -> list[tuple[UUID, Step]]:
        """Return a line of the timeline for what happened elsewhere, and how long the news took to get here."""
        if event.order_id is None:
            return []
        waited = (self._clock.now() - event.at).total_seconds()
        details["heard_after_ms"] = round(waited * 1000, 1)
        return [(event.order_id, Step(at=event.at, service=service, what=what, details=details, event_id=event_id))]

    async def _look_after(self, due: Unsettled) -> None:
        order = due.order
        if due.overdue(timedelta(seconds=self._settings.patience)):
            async with self._db.transaction() as tx:
                await self._change(tx, order.id, model.expire, by="deadline")
                await faults.point("orders.cancel.before-commit")
            await faults.point("orders.cancel.after-commit")
            return
        outcome = await self._payments.find(order.id)
        took = None
        if outcome.result is Result.UNKNOWN:
            outcome, took = await self._charge(order)
        async with self._db.transaction() as tx:
            await self.settle(tx, order.id, outcome, by="reconciler", took=took)
            await faults.point("orders.settle.before-commit")
        await faults.point("orders.settle.after-commit")

    async def _undo(self, due: Compensation) -> None:
        await faults.point("orders.compensation.before-call")
        outcome = await self._payments.undo(due)
        await faults.point("orders.compensation.after-call")
        if outcome.result not in FINAL:
            log.info("orders.compensation_open", key=due.key, attempts=due.attempts, reason=outcome.reason)
            return
        async with self._db.transaction() as tx:
            if await store.close_compensation(tx, due.order_id, due.kind, outcome.result):
                details = {"kind": due.kind, "outcome": outcome.result, "attempts": due.attempts}
                step = Step(at=self._clock.now(), service="orders", what="payment undone", details=details)
                await store.add_step(tx, due.order_id, step)
            await faults.point("orders.compensation.before-commit")
        await faults.point("orders.compensation.after-commit")

    async def _few_at_once(self, work: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
        """Work on each, a few at a time, so that checkouts keep their share; an error of one stops no other."""
        places = asyncio.Semaphore(self._settings.at_once)

        async def one(item: T) -> None:
            async with places:
                await work(item)

        results = await asyncio.gather(*(one(item) for item in items), return_exceptions=True)
        failed = [result for result in results if isinstance(result, BaseException)]
        if failed:
            raise failed[0]

    async def _known(self, tx: Transaction, order_id: UUID) -> Order:
        order = await store.find(tx, order_id)
        if order is None:
            raise RuntimeError(f"order {order_id} has a claim but no row")
        return order


def _timed(took: float | None) -> dict[str, Any]:
    return {} if took is None else {"payment_ms": round(took * 1000, 1)}


def _step(change: Change, details: dict[str, Any]) -> Step:
    after = change.order
    told = {"reason": after.reason, "note": change.note, "payment_id": after.payment_id}
    details |= {name: value for name, value in told.items() if value is not None}
    return Step(at=after.updated_at, service="orders", what=HAPPENED[after.status], details=details)


def _own(order: Order | None, customer_id: UUID) -> Order:
    if order is None or order.customer_id != customer_id:
        raise NotFound("there is no such order of yours")
    return order


def _allow(rule: Callable[[], T]) -> T:
    """Return the result of a rule of the model, its refusal as the problem that clients know."""
    try:
        return rule()
    except model.InvalidOrder as error:
        raise Unprocessable(errors=[FieldError(one.pointer, one.reason) for one in error.violations]) from error
    except model.OutOfStock as error:
        missing = [{"sku": m.sku, "requested": m.requested, "available": m.available} for m in error.missing]
        raise Conflict("out-of-stock", str(error), missing=missing) from error
    except model.PriceChanged as error:
        raise Conflict("price-changed", str(error), total=error.total, expected_total=error.expected) from error
