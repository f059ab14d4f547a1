"""The life of an order after its checkout: reconciler, cancel, compensations, events and timeline on PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec
import pytest

import shop.orders
from backstay.db import Database
from backstay.faults import Injected
from backstay.service import NotFound
from backstay.testing import armed
from shop.contracts.inventory import InventoryRejected, InventoryReserved, MissingLine, ReservedLine
from shop.contracts.notifications import NotificationSent
from shop.contracts.payments import PaymentCaptured, PaymentDeclined, PaymentRefunded
from shop.kernel import Money
from shop.orders.config import FAULT_POINTS
from shop.orders.model import Outcome, Result, Status

if TYPE_CHECKING:
    from conftest import Counter

CUSTOMER = UUID(int=7)
PRICE = Money.of("36.00")
PENDING = Outcome(result=Result.PENDING, reason="no answer in time")
CAPTURED = Outcome(result=Result.CAPTURED, payment_id=UUID(int=99))
DECLINED = Outcome(result=Result.DECLINED, reason="card_declined")
UNKNOWN = Outcome(result=Result.UNKNOWN)


async def place(counter: Counter, outcome: Outcome = CAPTURED) -> UUID:
    counter.payments.charged = outcome
    answer = await counter.checkout()
    body: dict[str, Any] = msgspec.json.decode(answer.content())
    counter.payments.asked.clear()
    return UUID(body.get("id") or body["order_id"])


def captured(counter: Counter, order_id: UUID) -> PaymentCaptured:
    return PaymentCaptured(
        payment_id=UUID(int=99),
        order_id=order_id,
        customer_id=CUSTOMER,
        amount=PRICE,
        at=counter.clock.now(),
    )


def refunded(counter: Counter, order_id: UUID) -> PaymentRefunded:
    return PaymentRefunded(
        payment_id=UUID(int=99),
        order_id=order_id,
        customer_id=CUSTOMER,
        amount=PRICE,
        at=counter.clock.now(),
        reason="out_of_stock",
    )


def rejected(counter: Counter, order_id: UUID) -> InventoryRejected:
    missing = (MissingLine(sku="P1", requested=2, available=1),)
    return InventoryRejected(order_id=order_id, customer_id=CUSTOMER, missing=missing, at=counter.clock.now())


# -- the reconciler


@pytest.mark.parametrize(
    ("found", "status"),
    [(CAPTURED, "confirmed"), (DECLINED, "cancelled"), (Outcome(result=Result.VOIDED), "cancelled")],
)
async def test_the_reconciler_settles_what_payments_knows(counter: Counter, found: Outcome, status: str) -> None:
    """It asks by order id when the time has come, not before."""
    order_id = await place(counter, PENDING)
    counter.payments.found = found
    assert await counter.orders.reconcile() == 0

    await counter.elapse(5.1)
    assert await counter.orders.reconcile() == 1
    assert await counter.status(order_id) == status
    assert counter.payments.asked == ["find"]


async def test_the_reconciler_charges_what_payments_does_not_know(counter: Counter) -> None:
    """Killed between saving and charging: the same key, the same amount, by the reconciler."""
    order_id = await place(counter, PENDING)
    counter.payments.charged = CAPTURED
    await counter.elapse(5.1)
    await counter.orders.reconcile()

    assert counter.payments.asked == ["find", "charge"]
    assert await counter.status(order_id) == "confirmed"


async def test_looks_become_rarer(counter: Counter) -> None:
    """Five seconds, doubling to thirty, each a fifth more or less."""
    await place(counter, PENDING)
    counter.payments.found = PENDING
    for pause in (5, 10, 20, 30, 30):
        await counter.elapse(pause * 1.2)
        before = await counter.db.fetchval("SELECT clock_timestamp()")
        assert await counter.orders.reconcile() == 1
        due = await counter.db.fetchval("SELECT next_check_at FROM orders")
        after = await counter.db.fetchval("SELECT clock_timestamp()")
        assert due - before >= timedelta(seconds=pause * 0.8)
        assert due - after <= timedelta(seconds=pause * 1.2)


async def test_reconcilers_share_the_work(counter: Counter) -> None:
    """Any number of instances, no leader: each order is looked after by one of them."""
    for _ in range(7):
        await place(counter, PENDING)
    counter.payments.found = CAPTURED
    await counter.elapse(5.1)

    taken = await asyncio.gather(*(counter.orders.reconcile() for _ in range(3)))
    assert sum(taken) == 7
    assert counter.payments.asked == ["find"] * 7


async def test_one_run_looks_after_all_that_are_due(counter: Counter) -> None:
    """After an outage thousands wait: one run takes batch after batch, not one a second."""
    counter.orders._settings = replace(counter.orders._settings, batch=2)
    for _ in range(5):
        await place(counter, PENDING)
    counter.payments.found = CAPTURED
    await counter.elapse(5.1)

    assert await counter.orders.reconcile() == 5
    assert await counter.orders.reconcile() == 0


async def test_one_order_in_trouble_stops_no_other(counter: Counter) -> None:
    """The reconciler goes on, and tells its supervisor."""
    orders = [await place(counter, PENDING) for _ in range(3)]
    counter.payments.found = CAPTURED
    await counter.elapse(5.1)
    with armed("orders.settle.before-commit=error*1"), pytest.raises(Injected):
        await counter.orders.reconcile()

    assert sorted([await counter.status(order) for order in orders]) == ["confirmed", "confirmed", "payment_pending"]


async def test_after_fifteen_minutes_the_order_is_given_up(counter: Counter) -> None:
    """Cancelled and voided in one step, also when payments is away; the repeat of the checkout keeps its answer."""
    order_id = await place(counter, PENDING)
    await counter.elapse(899)
    counter.payments.found = PENDING
    await counter.orders.reconcile()
    assert await counter.status(order_id) == "payment_pending"

    await counter.elapse(40)
    await counter.orders.reconcile()
    assert await counter.status(order_id) == "cancelled"
    assert await counter.compensations(order_id) == {"void": None}
    assert (await counter.orders.find(CUSTOMER, order_id)).reason == "payment_timeout"


@pytest.mark.parametrize("seconds", [1000, -1000])
async def test_a_wrong_clock_of_a_process_ends_no_order(counter: Counter, seconds: float) -> None:
    """Due and overdue are decided by the database: neither the reconciler's clock nor that of the checkout counts."""
    counter.clock.advance(seconds)
    early = await place(counter, PENDING)
    counter.clock.advance(-2 * seconds)
    late = await place(counter, PENDING)
    assert await counter.orders.reconcile() == 0, "nothing is due yet"

    await counter.elapse(5.1)
    counter.payments.found = PENDING
    assert await counter.orders.reconcile() == 2
    assert [await counter.status(order) for order in (early, late)] == ["payment_pending"] * 2


@pytest.mark.parametrize("seconds", [1000, -1000])
async def test_a_wrong_clock_of_a_process_holds_up_no_compensation(counter: Counter, seconds: float) -> None:
    """Written down by one process, due for the next one, however their clocks differ."""
    order_id = await place(counter)
    counter.clock.advance(seconds)
    await counter.orders.cancel(CUSTOMER, order_id)
    counter.clock.advance(-seconds)
    assert await counter.orders.compensate() == 1
    assert await counter.compensations(order_id) == {"void": "voided"}


# -- cancelling


@pytest.mark.parametrize(("outcome", "confirmed"), [(CAPTURED, True), (PENDING, False)])
async def test_a_customer_may_cancel(counter: Counter, outcome: Outcome, confirmed: bool) -> None:
    """Open or confirmed; the event says whether stock has to come back."""
    order_id = await place(counter, outcome)
    view = await counter.orders.cancel(CUSTOMER, order_id)

    assert (view.status, view.reason) == ("cancelled", "cancelled_by_customer")
    assert await counter.compensations(order_id) == {"void": None}
    payload = await counter.db.fetchval("SELECT payload FROM outbox WHERE type = 'order.cancelled'")
    assert msgspec.json.decode(payload)["was_confirmed"] is confirmed


async def test_cancelling_twice_is_cancelling_once(counter: Counter) -> None:
    """The second gets the order as it is; one event, one compensation."""
    order_id = await place(counter)
    first = await counter.orders.cancel(CUSTOMER, order_id)

    assert await counter.orders.cancel(CUSTOMER, order_id) == first
    assert await counter.published(order_id) == ["created", "confirmed", "cancelled"]


async def test_other_peoples_orders_are_not_there(counter: Counter) -> None:
    """Neither to see, nor to follow, nor to cancel; and nothing happens to them."""
    order_id = await place(counter)
    stranger = uuid4()
    for forbidden in (
        counter.orders.find(stranger, order_id),
        counter.orders.timeline(stranger, order_id),
        counter.orders.cancel(stranger, order_id),
        counter.orders.find(CUSTOMER, uuid4()),
    ):
        with pytest.raises(NotFound):
            await forbidden
    assert await counter.status(order_id) == "confirmed"


async def test_cancel_and_capture_at_once_end_consistently(counter: Counter) -> None:
    """Whoever comes first: a cancelled order whose money goes back."""
    for _ in range(5):
        order_id = await place(counter, PENDING)
        await asyncio.gather(
            counter.orders.cancel(CUSTOMER, order_id),
            counter.handle(counter.orders.payments_captured, [captured(counter, order_id)], [uuid4()]),
        )
        assert await counter.status(order_id) == "cancelled"
        assert "void" in await counter.compensations(order_id)


async def test_settling_from_many_sides_at_once_happens_once(counter: Counter) -> None:
    """Event, answer and reconciler bring the same news: one transition, one event."""
    order_id = await place(counter, PENDING)
    await asyncio.gather(*(counter.settle(order_id, CAPTURED) for _ in range(8)))

    assert await counter.published(order_id) == ["created", "payment-pending", "confirmed"]


# -- compensations


async def test_a_compensation_is_closed_by_a_final_answer(counter: Counter) -> None:
    """`processing` means again later; the age is measured meanwhile."""
    order_id = await place(counter)
    await counter.orders.cancel(CUSTOMER, order_id)
    counter.payments.undone = PENDING
    assert await counter.orders.compensate() == 1
    assert await counter.compensations(order_id) == {"void": None}
    await counter.elapse(3)
    await counter.orders.measure()
    assert counter.orders.statistics().open_compensations == 1
    assert counter.orders.statistics().oldest_compensation_age >= 3
    assert await counter.orders.compensate() == 0

    await counter.elapse(4)
    counter.payments.undone = Outcome(result=Result.REFUNDED)
    assert await counter.orders.compensate() == 1
    assert await counter.compensations(order_id) == {"void": "refunded"}
    assert await counter.orders.compensate() == 0
    assert counter.payments.asked == ["void", "void"]


async def test_a_refund_made_at_the_provider_ends_a_confirmed_order(counter: Counter) -> None:
    """`order.cancelled` returns its stock; nothing is left to undo; cancelling it again changes nothing."""
    order_id = await place(counter)
    for _ in range(2):
        await counter.handle(counter.orders.payment_refunded, refunded(counter, order_id), uuid4())

    order = await counter.orders.find(CUSTOMER, order_id)
    assert (order.status, order.reason) == ("cancelled", "refunded")
    assert await counter.compensations(order_id) == {}
    assert await counter.published(order_id) == ["created", "confirmed", "cancelled"]
    assert (await counter.orders.cancel(CUSTOMER, order_id)).reason == "refunded"


async def test_the_news_of_the_refund_closes_it_too(counter: Counter) -> None:
    """`payment.refunded` arrives before the job came round."""
    order_id = await place(counter)
    await counter.handle(counter.orders.stock_rejected, rejected(counter, order_id), uuid4())
    await counter.handle(counter.orders.payment_refunded, refunded(counter, order_id), uuid4())

    assert await counter.compensations(order_id) == {"refund": "refunded"}
    assert await counter.orders.compensate() == 0


@pytest.mark.parametrize("point", [point for point in FAULT_POINTS if "compensation" in point])
async def test_a_compensation_that_dies_anywhere_is_carried_out(counter: Counter, point: str) -> None:
    """Without a last attempt, until payments says a final word."""
    order_id = await place(counter)
    await counter.orders.cancel(CUSTOMER, order_id)
    with armed(f"{point}=error*1"), pytest.raises(Injected):
        await counter.orders.compensate()
    await counter.elapse(10)
    await counter.orders.compensate()

    assert await counter.compensations(order_id) == {"void": "voided"}


# -- events


async def test_the_stock_that_is_not_there_cancels_and_refunds(counter: Counter) -> None:
    """One transaction: cancelled, published, and the refund written down."""
    order_id = await place(counter)
    await counter.handle(counter.orders.stock_rejected, rejected(counter, order_id), uuid4())

    assert await counter.status(order_id) == "cancelled"
    assert await counter.compensations(order_id) == {"refund": None}
    assert await counter.published(order_id) == ["created", "confirmed", "cancelled"]
    assert (await counter.orders.find(CUSTOMER, order_id)).reason == "out_of_stock"


@pytest.mark.parametrize("status", [Status.CANCELLED, Status.PAYMENT_PENDING])
async def test_an_old_rejection_changes_nothing(counter: Counter, status: Status) -> None:
    """Only a confirmed order can be rejected."""
    order_id = await place(counter, PENDING)
    if status is Status.CANCELLED:
        await counter.orders.cancel(CUSTOMER, order_id)
    before = await counter.published(order_id)
    await counter.handle(counter.orders.stock_rejected, rejected(counter, order_id), uuid4())

    assert (await counter.status(order_id), await counter.published(order_id)) == (status, before)


async def test_an_event_of_payments_settles_the_order(counter: Counter) -> None:
    """A waiting order is confirmed by the news; told again, nothing happens."""
    order_id = await place(counter, PENDING)
    event_id = uuid4()
    for _ in range(2):
        await counter.handle(counter.orders.payments_captured, [captured(counter, order_id)], [event_id])

    assert await counter.published(order_id) == ["created", "payment-pending", "confirmed"]
    assert await counter.what(order_id) == ["order created", "payment pending", "payment captured", "order confirmed"]


async def test_a_declined_payment_cancels_a_waiting_order(counter: Counter) -> None:
    """Nothing has to be undone."""
    order_id = await place(counter, PENDING)
    event = PaymentDeclined(
        payment_id=UUID(int=99),
        order_id=order_id,
        customer_id=CUSTOMER,
        amount=PRICE,
        at=counter.clock.now(),
        reason="card_declined",
    )
    await counter.handle(counter.orders.payment_declined, event, uuid4())

    assert await counter.status(order_id) == "cancelled"
    assert await counter.compensations(order_id) == {}


async def test_a_capture_for_a_cancelled_order_is_refunded(counter: Counter) -> None:
    """The event comes after the deadline gave the order up."""
    order_id = await place(counter, DECLINED)
    await counter.handle(counter.orders.payments_captured, [captured(counter, order_id)], [uuid4()])

    assert await counter.compensations(order_id) == {"refund": None}


async def test_news_of_an_unknown_order_are_no_error(counter: Counter) -> None:
    """They are somebody else's, or older than our database."""
    await counter.handle(counter.orders.payments_captured, [captured(counter, uuid4())], [uuid4()])


# -- seeing


async def test_the_timeline_tells_what_every_service_did(counter: Counter) -> None:
    """In the order of time, each event once."""
    order_id = await place(counter)
    counter.clock.advance(1)
    reserved = InventoryReserved(
        order_id=order_id, customer_id=CUSTOMER, lines=(ReservedLine(sku="P1", quantity=2),), at=counter.clock.now()
    )
    event_id = uuid4()
    for _ in range(2):
        await counter.handle(counter.orders.stock_told, [reserved], [event_id])
    counter.clock.advance(1)
    for order in (order_id, None):
        mail = NotificationSent(
            notification_id=uuid4(), kind="confirmed", customer_id=CUSTOMER, order_id=order, at=counter.clock.now()
        )
        await counter.handle(counter.orders.mails_sent, [mail], [uuid4()])

    timeline = await counter.orders.timeline(CUSTOMER, order_id)
    assert [(entry.service, entry.what) for entry in timeline] == [
        ("orders", "order created"),
        ("orders", "order confirmed"),
        ("inventory", "stock reserved"),
        ("notifications", "mail sent"),
    ]
    assert timeline[2].details == {"lines": [{"sku": "P1", "quantity": 2}], "heard_after_ms": 0.0}
    assert timeline[0].details["total"] == {"amount": "36.00", "currency": "USD"}


async def test_my_orders_come_in_pages_newest_first(counter: Counter) -> None:
    """Each once, whatever the size of a page; nobody else's among them; by status if wanted."""
    mine = [await place(counter) for _ in range(5)]
    await counter.checkout(customer=uuid4())
    await counter.orders.cancel(CUSTOMER, mine[1])
    seen: list[UUID] = []
    before = None
    for _ in range(3):
        views, before = await counter.orders.page(CUSTOMER, before=before, status=None, limit=2)
        seen += [view.id for view in views]

    assert seen == mine[::-1]
    assert before is None
    cancelled, _ = await counter.orders.page(CUSTOMER, before=None, status=Status.CANCELLED, limit=10)
    assert [view.id for view in cancelled] == [mine[1]]


async def test_every_fault_point_is_declared(counter: Counter) -> None:
    """The list that acceptance tests go through is exactly what the code passes by."""
    hits: list[str] = []
    with armed("nothing=error") as plan:
        plan.take = lambda name: hits.append(name)  # type: ignore[method-assign,assignment,return-value]
        order_id = await place(counter, PENDING)
        await counter.elapse(6)
        await counter.orders.reconcile()
        await counter.orders.cancel(CUSTOMER, order_id)
        await counter.orders.compensate()

    assert set(hits) == set(FAULT_POINTS)


# -- for the auditor


async def test_the_auditor_reads_each_order_as_it_is_after_its_last_change(counter: Counter) -> None:
    """In the order of the changes, page by page; an order that changes again comes again, a lease is no change."""
    first, second = await place(counter), await place(counter, PENDING)
    [(at_first, audited), (at_second, _)] = await counter.orders.audit((0, UUID(int=0)), limit=10)
    assert (audited.id, audited.status, audited.units) == (first, Status.CONFIRMED, {"P1": 2})
    assert [place for place, _ in await counter.orders.audit(at_first, limit=10)] == [at_second]

    await counter.elapse(6)
    counter.payments.found = PENDING
    await counter.orders.reconcile()
    assert await counter.orders.audit(at_second, limit=10) == []
    await counter.orders.cancel(CUSTOMER, first)
    [(_, again)] = await counter.orders.audit(at_second, limit=10)
    assert (again.id, again.status, again.reason) == (first, Status.CANCELLED, "cancelled_by_customer")
    assert second


async def test_the_auditor_sees_nothing_that_an_open_transaction_could_precede(counter: Counter) -> None:
    """What commits late is read late, and not missed."""
    async with counter.db.transaction() as slow:
        await slow.execute("UPDATE products SET name = name")
        order_id = await place(counter)
        assert await counter.orders.audit((0, UUID(int=0)), limit=10) == []
    [(_, found)] = await counter.orders.audit((0, UUID(int=0)), limit=10)
    assert found.id == order_id


async def test_orders_of_an_older_release_are_looked_after_and_audited(
    database: str, tmp_path: Path, counter_with: Any
) -> None:
    """Rows that were there before the database's clock decided: overdue by their `created_at`, first in the feed."""
    for name in ("0001_orders.sql", "0002_catalog.sql"):
        migration = Path(shop.orders.__file__).parent / "migrations" / name
        (tmp_path / name).write_text(migration.read_text())
    old, fresh = uuid4(), uuid4()
    async with Database("orders", dsn=database, migrations=tmp_path) as before:
        for order_id, age in ((old, timedelta(minutes=16)), (fresh, timedelta(minutes=1))):
            await before.execute(
                "INSERT INTO orders (id, customer_id, status, lines, total, currency, payment_method, version,"
                " next_check_at, created_at, updated_at)"
                " VALUES ($1, $2, 'payment_pending', '[]', 18, 'USD', 'pm_card_ok', 2, now(), now() - $3::interval,"
                " now())",
                order_id,
                CUSTOMER,
                age,
            )
    async with counter_with() as counter:
        counter.payments.found = PENDING
        assert {found.id for _, found in await counter.orders.audit((0, UUID(int=0)), limit=10)} == {old, fresh}
        assert await counter.orders.reconcile() == 2
        assert (await counter.status(old), await counter.status(fresh)) == ("cancelled", "payment_pending")
