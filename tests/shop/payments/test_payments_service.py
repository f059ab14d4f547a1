"""Use cases of payments on PostgreSQL with the sandbox: charged once, refunded once, whatever happens in between."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import pytest

from backstay.errors import BackstayError
from backstay.faults import Injected
from backstay.service import NotFound, Problem, Unprocessable
from backstay.testing import armed
from shop.contracts.payments import ChargeRequest
from shop.kernel import Money
from shop.payments.config import FAULT_POINTS
from shop.payments.model import Changes, Entry, Outcome, Reply
from shop.payments.providers import ProviderError, Sandbox

if TYPE_CHECKING:
    from conftest import Desk

PRICE = Money.of("18.00")


async def test_a_charge_is_captured_and_told(desk: Desk, order_id: UUID) -> None:
    """The ordinary way: one ledger line, one event, one answer."""
    paid = await desk.charge(order_id)

    assert (paid.status, paid.amount) == ("captured", PRICE)
    assert await desk.ledger() == [("captured", "18.00")]
    assert await desk.published(order_id) == ["payment.captured"]
    assert await desk.attempts() == [("charge", "captured")]


@pytest.mark.parametrize(
    ("method", "reason"),
    [("pm_card_declined", "card_declined"), ("pm_card_insufficient_funds", "insufficient_funds")],
)
async def test_a_decline_is_an_ordinary_answer(desk: Desk, order_id: UUID, method: str, reason: str) -> None:
    """Declined is final, with the provider's reason, and nothing is taken."""
    declined = await desk.charge(order_id, method)

    assert (declined.status, declined.reason) == ("declined", reason)
    assert await desk.ledger() == []
    assert await desk.published(order_id) == ["payment.declined"]


async def test_a_repeated_charge_is_the_same_payment(desk: Desk, order_id: UUID) -> None:
    """However often it is asked for, an order is charged once."""
    first = await desk.charge(order_id)

    assert await desk.charge(order_id) == first
    assert await desk.ledger() == [("captured", "18.00")]


async def test_two_charges_at_once_are_one_payment(desk: Desk, order_id: UUID) -> None:
    """The second finds the first at work and says `processing`, or finds it done."""
    answers = await asyncio.gather(*(desk.charge(order_id) for _ in range(8)))

    assert {answer.status for answer in answers} <= {"captured", "processing"}
    assert len({answer.payment_id for answer in answers}) == 1
    assert await desk.ledger() == [("captured", "18.00")]
    assert await desk.published(order_id) == ["payment.captured"]


async def test_another_amount_for_the_same_order_is_refused(desk: Desk, order_id: UUID) -> None:
    """The order id is the key: it can't be used for something else."""
    await desk.charge(order_id)
    with pytest.raises(Unprocessable):
        await desk.charge(order_id, amount=Money.of("18.01"))


async def test_a_wrong_charge_is_refused_field_by_field(desk: Desk, order_id: UUID) -> None:
    """More than zero, by a method that the provider knows; otherwise nothing is saved."""
    with pytest.raises(Unprocessable) as refused:
        await desk.charge(order_id, "pm_cash", Money.of("0.00"))

    assert [error.pointer for error in refused.value.errors] == ["/amount/amount", "/method"]
    with pytest.raises(NotFound):
        await desk.payments.find(order_id)


async def test_a_provider_that_fails_once_succeeds_for_the_same_key(desk: Desk, order_id: UUID) -> None:
    """The first attempt answers 502 and gives its lease back, so that the caller's retry may go on at once."""
    with pytest.raises(Problem) as failed:
        await desk.charge(order_id, "pm_card_error_then_ok")
    assert failed.value.status == 502
    assert await desk.status(order_id) == "processing"

    assert (await desk.charge(order_id, "pm_card_error_then_ok")).status == "captured"
    assert await desk.attempts() == [("charge", "error"), ("charge", "captured")]
    assert await desk.ledger() == [("captured", "18.00")]


async def test_while_the_provider_is_slow_others_are_told_processing(desk: Desk, order_id: UUID) -> None:
    """A slow capture is captured all the same; who asks meanwhile doesn't ask the provider again."""
    slow = asyncio.create_task(desk.charge(order_id, "pm_card_slow"))
    while not await desk.ledger():
        await asyncio.sleep(0)
    assert (await desk.charge(order_id, "pm_card_slow")).status == "processing"

    assert (await slow).status == "captured"
    assert await desk.attempts() == [("charge", "captured")]


async def test_unknown_orders_have_no_payment(desk: Desk, order_id: UUID) -> None:
    """Neither a lookup nor a refund makes one."""
    with pytest.raises(NotFound):
        await desk.payments.find(order_id)
    with pytest.raises(NotFound):
        await desk.payments.refund(order_id, "why not")


async def test_a_void_before_the_charge_is_a_tombstone(desk: Desk, order_id: UUID) -> None:
    """A charge that comes after it answers `voided`, whatever its amount, and takes nothing."""
    voided = await desk.payments.void(order_id, "cancelled")
    assert (voided.status, voided.payment_id, voided.amount) == ("voided", None, None)

    assert (await desk.charge(order_id)).status == "voided"
    assert await desk.ledger() == []
    assert await desk.published(order_id) == []


@pytest.mark.parametrize("verb", ["void", "refund"])
async def test_a_captured_payment_is_given_back_once(desk: Desk, order_id: UUID, verb: str) -> None:
    """Void or refund, one after the other or at once: one refund, one event."""
    await desk.charge(order_id)
    undo = getattr(desk.payments, verb)
    answers = await asyncio.gather(
        undo(order_id, "first"), desk.payments.refund(order_id, "second"), desk.payments.void(order_id, "third")
    )

    assert "refunded" in {answer.status for answer in answers}
    assert await desk.status(order_id) == "refunded"
    assert await desk.ledger() == [("captured", "18.00"), ("refunded", "-18.00")]
    assert await desk.published(order_id) == ["payment.captured", "payment.refunded"]
    row = await desk.db.fetchrow("SELECT count(*) AS n, count(refunded_at) AS done FROM refunds")
    assert row is not None
    assert (row["n"], row["done"]) == (1, 1)


async def test_a_void_while_the_charge_is_under_way_refunds_it(desk: Desk, order_id: UUID) -> None:
    """The provider has the money already when the void comes: it goes back, and the charge's answer finds it gone."""
    slow = asyncio.create_task(desk.charge(order_id, "pm_card_slow"))
    while not await desk.ledger():
        await asyncio.sleep(0)

    assert (await desk.payments.void(order_id, "cancelled")).status == "refunded"
    assert (await slow).status == "refunded"
    assert await desk.published(order_id) == ["payment.captured", "payment.refunded"]


async def test_a_void_before_the_provider_heard_of_it_is_final_there(desk: Desk, order_id: UUID) -> None:
    """Killed between intent and call, then voided: `cancel` is answered first, and a late charge is refused."""
    with armed("payments.provider.before-charge=error*1"), pytest.raises(Injected):
        await desk.charge(order_id)
    payment_id = (await desk.payments.find(order_id)).payment_id

    assert (await desk.payments.void(order_id, "cancelled")).status == "voided"
    late = await desk.sandbox.charge(str(payment_id), PRICE, "pm_card_ok")
    assert late.outcome is Outcome.CANCELLED
    assert await desk.ledger() == []


async def test_a_void_stands_while_the_provider_is_away(desk: Desk, order_id: UUID) -> None:
    """The decision is committed; `processing` says that it is carried out later, and the job does."""
    await desk.charge(order_id)
    with armed("payments.provider.before-refund=error*1"), pytest.raises(Injected):
        await desk.payments.void(order_id, "cancelled")
    assert await desk.status(order_id) == "processing"

    await desk.elapse(6)
    assert await desk.payments.resolve_stale() == 1
    assert await desk.status(order_id) == "refunded"


class Away:
    """A provider that gives no answer to anything."""

    methods = Sandbox.methods

    async def charge(self, key: str, amount: Money, method: str) -> Reply:
        raise ProviderError("away")

    async def find(self, key: str) -> Reply:
        raise ProviderError("away")

    async def cancel(self, key: str) -> Reply:
        raise ProviderError("away")

    async def refund(self, key: str, charge_key: str, amount: Money) -> Reply:
        raise ProviderError("away")

    async def changes(self, since: str | None, *, limit: int) -> Changes:
        raise ProviderError("away")


async def test_while_the_provider_is_away_void_says_later_and_the_job_backs_off(desk: Desk, order_id: UUID) -> None:
    """Each failure doubles the pause; as soon as the provider is back the payment ends."""
    away = desk.with_provider(Away())
    await desk.charge(order_id)
    assert (await away.void(order_id, "cancelled")).status == "processing"

    await desk.elapse(1.1)
    for pause in (2, 4, 8):
        before = await desk.db.fetchval("SELECT clock_timestamp()")
        assert await away.resolve_stale() == 1
        due = await desk.db.fetchval("SELECT next_check_at FROM payments")
        assert due - before >= timedelta(seconds=pause)
        await desk.elapse(pause + 1)
    assert await desk.payments.resolve_stale() == 1
    assert await desk.status(order_id) == "refunded"


async def test_a_stale_payment_that_the_provider_does_not_know_is_charged(desk: Desk, order_id: UUID) -> None:
    """Died between intent and call: the job looks it up, and charges with the same key."""
    with armed("payments.charge.after-intent-commit=error*1"), pytest.raises(Injected):
        await desk.charge(order_id)
    assert await desk.payments.resolve_stale() == 0

    await desk.elapse(6)
    assert await desk.payments.resolve_stale() == 1
    assert await desk.status(order_id) == "captured"
    assert await desk.ledger() == [("captured", "18.00")]


async def test_two_jobs_at_once_share_the_stale_payments(desk: Desk) -> None:
    """SKIP LOCKED and the lease: each payment is taken by one of them."""
    orders = [uuid4() for _ in range(10)]
    with armed("payments.charge.after-intent-commit=error"):
        await asyncio.gather(*(desk.charge(order) for order in orders), return_exceptions=True)
    await desk.elapse(6)

    taken = await asyncio.gather(*(desk.with_provider(desk.sandbox).resolve_stale() for _ in range(3)))
    assert sum(taken) == 10
    assert {await desk.status(order) for order in orders} == {"captured"}


CHARGING = [point for point in FAULT_POINTS if "charge" in point]
UNDOING = [point for point in FAULT_POINTS if "charge" not in point and "find" not in point]


async def _heal(desk: Desk) -> None:
    for _ in range(3):
        await desk.elapse(40)
        await desk.payments.resolve_stale()


@pytest.mark.parametrize("point", CHARGING)
async def test_a_charge_that_dies_anywhere_happens_once(desk: Desk, order_id: UUID, point: str) -> None:
    """At every point of the charge: the caller asks again, and the books show one capture."""
    with armed(f"{point}=error*1"), pytest.raises(BackstayError):
        await desk.charge(order_id)
    await _heal(desk)

    assert (await desk.charge(order_id)).status == "captured"
    assert await desk.ledger() == [("captured", "18.00")]
    assert await desk.published(order_id) == ["payment.captured"]


@pytest.mark.parametrize("verb", ["void", "refund"])
@pytest.mark.parametrize("point", UNDOING)
async def test_an_undo_that_dies_anywhere_happens_once(desk: Desk, order_id: UUID, point: str, verb: str) -> None:
    """At every point of void and refund: whoever asks again finds, or finishes, one refund."""
    await desk.charge(order_id)
    with armed(f"{point}=error*1"):
        await asyncio.gather(getattr(desk.payments, verb)(order_id, "x"), return_exceptions=True)
    await _heal(desk)

    assert (await getattr(desk.payments, verb)(order_id, "again")).status == "refunded"
    assert await desk.ledger() == [("captured", "18.00"), ("refunded", "-18.00")]
    assert await desk.published(order_id) == ["payment.captured", "payment.refunded"]


@pytest.mark.parametrize("point", ["payments.provider.before-find", "payments.provider.after-find"])
async def test_a_lookup_that_dies_is_made_again(desk: Desk, order_id: UUID, point: str) -> None:
    """The job that dies over a stale payment leaves it to the next one."""
    with armed("payments.provider.after-charge=error*1"), pytest.raises(Injected):
        await desk.charge(order_id)
    await desk.elapse(6)
    with armed(f"{point}=error*1"):
        await desk.payments.resolve_stale()
    await _heal(desk)

    assert await desk.status(order_id) == "captured"


async def test_every_fault_point_is_declared(desk: Desk) -> None:
    """The list that acceptance tests go through is exactly what the code passes by."""
    with armed("nothing=error") as plan:
        hits: list[str] = []
        plan.take = lambda name: hits.append(name)  # type: ignore[method-assign,assignment,return-value]
        paid, stale, unwanted = uuid4(), uuid4(), uuid4()
        await desk.charge(paid)
        await desk.payments.refund(paid, "x")
        await desk.payments.void(uuid4(), "x")
        for order in (stale, unwanted):
            await desk.db.execute(
                "INSERT INTO payments (id, order_id, customer_id, amount, currency, method, status, version,"
                " calling_until, next_check_at, created_at, updated_at) VALUES ($1, $2, $1, 18, 'USD', 'pm_card_ok',"
                " 'processing', 1, $3, $3, $3, $3)",
                uuid4(),
                order,
                desk.clock.now(),
            )
        await desk.payments.void(unwanted, "x")
        stale_payment = (await desk.payments.find(stale)).payment_id
        await desk.sandbox.charge(str(stale_payment), PRICE, "pm_card_ok")
        await desk.payments.resolve_stale()
        await desk.payments.follow_provider()

    assert set(hits) == set(FAULT_POINTS)


async def test_the_sandbox_keeps_its_books_apart(desk: Desk, order_id: UUID) -> None:
    """A capture is in the books although our own transaction that should record it was rolled back."""
    with armed("payments.charge.before-result-commit=error*1"), pytest.raises(Injected):
        await desk.charge(order_id)

    assert await desk.status(order_id) == "processing"
    assert await desk.ledger() == [("captured", "18.00")]


async def test_a_provider_that_never_answers_is_given_up(desk: Desk, order_id: UUID) -> None:
    """Every call has a time-out; the payment stays open, and the job finds out what became of it."""

    class Silent(Away):
        async def charge(self, key: str, amount: Money, method: str) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError("unreachable")

    impatient = desk.with_provider(Silent(), provider_timeout=0.01)
    request = ChargeRequest(order_id=order_id, customer_id=UUID(int=7), amount=PRICE, method="pm_card_ok")
    with pytest.raises(Problem) as failed:
        await impatient.charge(request)
    assert failed.value.status == 502

    await desk.elapse(2)
    await desk.payments.resolve_stale()
    assert await desk.status(order_id) == "captured"


async def test_the_sandbox_refuses_a_key_with_another_amount(desk: Desk) -> None:
    """As a real provider does."""
    await desk.sandbox.charge("k", PRICE, "pm_card_ok")
    with pytest.raises(ProviderError):
        await desk.sandbox.charge("k", Money.of("1.00"), "pm_card_ok")
    with pytest.raises(ProviderError):
        await desk.sandbox.refund("r", "unknown", PRICE)


async def test_a_sandbox_without_its_books_gives_no_answer(database: str) -> None:
    """An outage of the provider is an outage, not a crash of ours."""
    sandbox = Sandbox(dsn=database)
    async with sandbox:
        with pytest.raises(ProviderError):  # nobody has made its tables
            await sandbox.find("k")


async def test_open_payments_are_measured(desk: Desk, order_id: UUID) -> None:
    """Number and age of what waits for the provider, for the metrics."""
    with armed("payments.charge.after-intent-commit=error*1"), pytest.raises(Injected):
        await desk.charge(order_id)
    await desk.elapse(3)
    await desk.payments.measure()

    assert desk.payments.statistics().open_payments == 1
    assert desk.payments.statistics().oldest_open_age >= 3


# -- changes at the provider


async def refund_outside(desk: Desk, order_id: UUID, key: str = "dashboard-1", amount: Money = PRICE) -> None:
    """A refund made at the provider by somebody else, under a key of theirs."""
    charge = str((await desk.payments.find(order_id)).payment_id)
    assert (await desk.sandbox.refund(key, charge, amount)).outcome is Outcome.REFUNDED


async def test_a_refund_made_at_the_provider_is_found(desk: Desk, order_id: UUID) -> None:
    """The payment is refunded and says so once; its one refund carries the provider's key."""
    await desk.charge(order_id)
    await refund_outside(desk, order_id)
    assert await desk.payments.follow_provider() == 1
    assert await desk.payments.follow_provider() == 0

    assert await desk.status(order_id) == "refunded"
    assert await desk.published(order_id) == ["payment.captured", "payment.refunded"]
    rows = await desk.db.fetch("SELECT key, reason, refunded_at IS NOT NULL AS done FROM refunds")
    assert [tuple(row.values()) for row in rows] == [("dashboard-1", "refunded at the provider", True)]


@pytest.mark.parametrize("point", [point for point in FAULT_POINTS if "changes" in point])
async def test_a_follower_that_dies_anywhere_misses_nothing(desk: Desk, order_id: UUID, point: str) -> None:
    """The cursor moves together with what it has passed: each refund is recorded once."""
    await desk.charge(order_id)
    await refund_outside(desk, order_id)
    with armed(f"{point}=error*1"), pytest.raises(Injected):
        await desk.payments.follow_provider()
    await asyncio.gather(*(desk.restarted().follow_provider() for _ in range(3)))

    assert await desk.status(order_id) == "refunded"
    assert await desk.published(order_id) == ["payment.captured", "payment.refunded"]


async def test_a_refund_of_a_capture_that_was_never_recorded_is_both(desk: Desk, order_id: UUID) -> None:
    """The capture is published before its refund, so that the books of others add up."""
    with armed("payments.charge.before-result-commit=error*1"), pytest.raises(Injected):
        await desk.charge(order_id)
    await refund_outside(desk, order_id)
    await desk.payments.follow_provider()

    assert await desk.status(order_id) == "refunded"
    assert await desk.published(order_id) == ["payment.captured", "payment.refunded"]


async def test_our_own_refund_of_what_is_refunded_already_ends(desk: Desk, order_id: UUID) -> None:
    """Whoever was first, the money goes back once and nobody asks for ever."""
    await desk.charge(order_id)
    await refund_outside(desk, order_id)

    assert (await desk.payments.refund(order_id, "cancelled")).status == "refunded"
    assert await desk.payments.follow_provider() == 0
    assert await desk.ledger() == [("captured", "18.00"), ("refunded", "-18.00")]
    assert await desk.published(order_id) == ["payment.captured", "payment.refunded"]


async def test_the_ledger_is_read_page_by_page_and_misses_no_late_commit(desk: Desk) -> None:
    """An entry whose transaction was open while later ones were read comes after them."""
    async with desk.db.transaction() as slow:
        await slow.execute(
            "INSERT INTO sandbox.charges (key, amount, currency, status) VALUES ('a', 1, 'USD', 'captured')"
        )
        for number in range(3):
            await desk.sandbox.charge(f"b{number}", PRICE, "pm_card_ok")
        while_open = await desk.sandbox.changes(None, limit=10)
        assert while_open.entries == (), "nothing passes a transaction that runs"
    first = await desk.sandbox.changes(while_open.cursor, limit=3)
    second = await desk.sandbox.changes(first.cursor, limit=3)
    third = await desk.sandbox.changes(second.cursor, limit=3)

    assert [entry.key for entry in (*first.entries, *second.entries)] == ["a", "b0", "b1", "b2"]
    assert (first.more, second.more, third.entries) == (True, False, ())
    assert third.cursor == second.cursor
    assert {entry.entry for entry in first.entries} == {Entry.CAPTURED}


async def test_the_auditor_reads_payments_and_the_ledger_apart(desk: Desk, order_id: UUID) -> None:
    """Two feeds: what payments has recorded, and what the provider says; a payment that changes comes again."""
    await desk.charge(order_id)
    [(place, paid)] = await desk.payments.audit((0, UUID(int=0)), limit=10)
    assert (paid.order_id, paid.status.value, paid.amount) == (order_id, "captured", PRICE)
    first = await desk.payments.ledger(None, limit=10)
    assert [(entry.entry, entry.payment_id, entry.amount) for entry in first.entries] == [
        (Entry.CAPTURED, paid.id, PRICE)
    ]

    await desk.payments.refund(order_id, "x")
    [(_, again)] = await desk.payments.audit(place, limit=10)
    assert again.status.value == "refunded"
    assert [entry.entry for entry in (await desk.payments.ledger(first.cursor, limit=10)).entries] == [Entry.REFUNDED]


async def test_a_ledger_that_cannot_be_read_is_a_problem_of_the_provider(desk: Desk) -> None:
    """502, as for a charge: asking again with the same cursor is safe."""
    with pytest.raises(Problem) as failed:
        await desk.with_provider(Away()).ledger(None, limit=10)
    assert failed.value.status == 502
