"""The checkout on PostgreSQL: one order a key, one answer a key, nothing saved that was refused."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import msgspec
import pytest

from backstay import db
from backstay.faults import Injected
from backstay.service import Answer, Conflict, Problem, Unavailable, Unprocessable
from backstay.testing import armed
from shop.contracts.products import ProductUpdated
from shop.kernel import Money
from shop.orders.model import Outcome, Result

if TYPE_CHECKING:
    from conftest import Counter

AT = datetime(2026, 1, 1, tzinfo=UTC)
PENDING = Outcome(result=Result.PENDING, reason="no answer in time")
DECLINED = Outcome(result=Result.DECLINED, payment_id=UUID(int=99), reason="insufficient_funds")


def read(answer: Answer[Any]) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(answer.content())
    return decoded


async def test_a_captured_payment_confirms_the_order(counter: Counter) -> None:
    """201 with the order, priced by our catalog, and two events in the order of their versions."""
    answer = await counter.checkout(("P1", 2), ("P2", 1))
    order = read(answer)

    assert answer.status == 201
    assert answer.headers["location"] == f"/api/v1/orders/{order['id']}"
    assert order["status"] == "confirmed"
    assert order["total"] == {"amount": "55.50", "currency": "USD"}
    assert order["lines"][0] == {
        "sku": "P1",
        "name": "Product P1",
        "quantity": 2,
        "unit_price": {"amount": "18.00", "currency": "USD"},
        "total": {"amount": "36.00", "currency": "USD"},
        "product_version": 1,
    }
    order_id = UUID(order["id"])
    assert await counter.published(order_id) == ["created", "confirmed"]
    assert await counter.what(order_id) == ["order created", "order confirmed"]


async def test_a_declined_payment_is_a_problem(counter: Counter) -> None:
    """402, the order cancelled, the provider's reason in the body."""
    counter.payments.charged = DECLINED
    answer = await counter.checkout()

    assert answer.status == 402
    assert answer.headers["content-type"] == "application/problem+json"
    problem = read(answer)
    assert (problem["type"], problem["reason"]) == ("urn:backstay:problem:payment-declined", "insufficient_funds")
    order_id = UUID(problem["order_id"])
    assert await counter.published(order_id) == ["created", "cancelled"]
    assert await counter.compensations(order_id) == {}


async def test_without_an_answer_the_order_waits(counter: Counter) -> None:
    """202 with Location and Retry-After; it settles by itself later."""
    counter.payments.charged = PENDING
    answer = await counter.checkout()

    assert (answer.status, answer.headers["retry-after"]) == (202, "5")
    order = read(answer)
    assert (order["status"], order["reason"]) == ("payment_pending", "payment_unsettled")
    assert await counter.published(UUID(order["id"])) == ["created", "payment-pending"]


async def test_a_voided_payment_is_a_conflict(counter: Counter) -> None:
    """Payments was told to void the order before the charge came: 409."""
    counter.payments.charged = Outcome(result=Result.VOIDED)
    answer = await counter.checkout()

    assert answer.status == 409
    assert read(answer)["type"] == "urn:backstay:problem:order-cancelled"


@pytest.mark.parametrize("outcome", [Outcome(result=Result.CAPTURED), PENDING, DECLINED, Outcome(result=Result.VOIDED)])
async def test_a_repeat_gets_the_first_answer_byte_for_byte(counter: Counter, outcome: Outcome) -> None:
    """Also when the order has moved on and the catalog has changed meanwhile."""
    counter.payments.charged = outcome
    first = await counter.checkout(key="k")
    order_id = await counter.only_order()
    await counter.orders.cancel(UUID(int=7), order_id)
    await counter.stock("P1", 0)

    again = await counter.checkout(key="k")

    assert (again.status, again.content(), again.headers) == (first.status, first.content(), first.headers)
    assert counter.payments.asked == ["charge"]


async def test_the_same_key_with_another_body_is_refused(counter: Counter) -> None:
    """A key belongs to one request."""
    await counter.checkout(("P1", 1), key="k")
    with pytest.raises(Unprocessable):
        await counter.checkout(("P1", 2), key="k")


async def test_keys_of_two_customers_are_two_keys(counter: Counter) -> None:
    """Nobody gets somebody else's answer."""
    first = await counter.checkout(key="k")
    second = await counter.checkout(key="k", customer=uuid4())

    assert read(first)["id"] != read(second)["id"]


async def test_two_checkouts_with_one_key_at_once_are_one_order(counter: Counter) -> None:
    """One of them places the order; the others are told that it is in progress, or get its answer."""
    results = await asyncio.gather(*(counter.checkout(key="k") for _ in range(6)), return_exceptions=True)

    answers = [result for result in results if isinstance(result, Answer)]
    conflicts = [result for result in results if isinstance(result, Conflict)]
    assert len(answers) + len(conflicts) == 6
    assert {conflict.slug for conflict in conflicts} <= {"request-in-progress"}
    assert len({answer.content() for answer in answers}) == 1
    await counter.only_order()
    assert counter.payments.asked == ["charge"]


async def test_while_the_first_works_a_repeat_is_told_to_come_back(counter: Counter) -> None:
    """409 `request-in-progress` with Retry-After: 1."""
    seen: list[Problem] = []

    async def repeat(_order_id: UUID) -> None:
        with pytest.raises(Conflict) as refused:
            await counter.checkout(key="k")
        seen.append(refused.value)

    counter.payments.meanwhile = repeat
    await counter.checkout(key="k")

    assert [(problem.slug, problem.headers["Retry-After"]) for problem in seen] == [("request-in-progress", "1")]


async def test_a_repeat_resumes_the_order_of_a_request_that_died(counter: Counter) -> None:
    """After `locked_until` the same order is paid; no second one appears."""
    with armed("orders.payment.before-call=error*1"), pytest.raises(Injected):
        await counter.checkout(key="k")
    order_id = await counter.only_order()
    with pytest.raises(Conflict):
        await counter.checkout(key="k")

    await counter.db.execute("UPDATE idempotency_keys SET locked_until = now() - interval '1 s'")
    answer = await counter.checkout(key="k")

    assert (answer.status, read(answer)["id"]) == (201, str(order_id))
    assert await counter.only_order() == order_id
    assert await counter.published(order_id) == ["created", "confirmed"]


async def test_the_answer_is_that_of_whoever_settled_first(counter: Counter) -> None:
    """The event of the capture overtakes the answer of the call: the checkout sends what is stored."""
    counter.payments.charged = PENDING
    counter.payments.meanwhile = lambda order_id: counter.settle(
        order_id, Outcome(result=Result.CAPTURED, payment_id=UUID(int=99))
    )
    answer = await counter.checkout()

    assert (answer.status, read(answer)["status"]) == (201, "confirmed")


async def test_an_order_cancelled_meanwhile_answers_409_and_the_capture_is_refunded(counter: Counter) -> None:
    """The money that arrives for a cancelled order goes back."""
    counter.payments.meanwhile = lambda order_id: counter.orders.cancel(UUID(int=7), order_id)
    answer = await counter.checkout()

    assert (answer.status, read(answer)["type"]) == (409, "urn:backstay:problem:order-cancelled")
    order_id = await counter.only_order()
    assert await counter.published(order_id) == ["created", "cancelled"]
    assert await counter.compensations(order_id) == {"void": None, "refund": None}


@pytest.mark.parametrize(
    ("lines", "more", "pointers"),
    [
        ([("P9", 1)], {}, ["/lines/0/sku"]),
        ([("P1", 0), ("P1", 1)], {}, ["/lines/0/sku", "/lines/0/quantity", "/lines/1/sku"]),
        ([("P1", 1)], {"payment_method": "cash"}, ["/payment_method"]),
    ],
)
async def test_a_broken_rule_saves_nothing(
    counter: Counter, lines: list[tuple[str, int]], more: dict[str, Any], pointers: list[str]
) -> None:
    """422 names every field; the key stays free."""
    with pytest.raises(Unprocessable) as refused:
        await counter.checkout(*lines, key="k", **more)

    assert [error.pointer for error in refused.value.errors] == pointers
    assert await counter.db.fetchval("SELECT count(*) FROM orders") == 0
    assert (await counter.checkout(key="k")).status == 201


async def test_an_unavailable_product_can_not_be_ordered(counter: Counter) -> None:
    """Taken off the shelf is refused like unknown, with its pointer."""
    gone = ProductUpdated(sku="P2", name="x", category="y", price=Money.of("1.00"), available=False, version=2, at=AT)
    await counter.handle(counter.orders.product_changed, gone)
    with pytest.raises(Unprocessable) as refused:
        await counter.checkout(("P1", 1), ("P2", 1))

    assert [error.pointer for error in refused.value.errors] == ["/lines/1/sku"]


async def test_an_older_version_of_a_product_changes_nothing(counter: Counter) -> None:
    """Events may be repeated and overtaken; our copy keeps the newest."""
    for version, price in ((3, "30.00"), (2, "20.00"), (3, "31.00")):
        event = ProductUpdated(
            sku="P1",
            name="x",
            category="y",
            price=Money.of(price),
            available=True,
            version=version,
            at=counter.clock.now(),
        )
        await counter.handle(counter.orders.product_changed, event)

    assert read(await counter.checkout(("P1", 1)))["total"]["amount"] == "30.00"


async def test_known_shortage_is_a_conflict_and_saves_nothing(counter: Counter) -> None:
    """A hint of the newest version counts; without a hint the product is taken to be there."""
    await counter.stock("P1", 3, version=5)
    await counter.stock("P1", 100, version=4)
    with pytest.raises(Conflict) as refused:
        await counter.checkout(("P1", 4), ("P2", 10_000), key="k")

    assert refused.value.slug == "out-of-stock"
    assert refused.value.members["missing"] == [{"sku": "P1", "requested": 4, "available": 3}]
    assert await counter.db.fetchval("SELECT count(*) FROM orders") == 0
    assert (await counter.checkout(("P1", 3), key="k")).status == 201


async def test_a_changed_price_is_a_conflict(counter: Counter) -> None:
    """The client learns both totals; nothing is saved."""
    with pytest.raises(Conflict) as refused:
        await counter.checkout(("P1", 2), expected_total=Money.of("35.00"))

    assert refused.value.slug == "price-changed"
    assert refused.value.members["total"] == Money.of("36.00")
    assert (await counter.checkout(("P1", 2), expected_total=Money.of("36.00"))).status == 201


async def test_who_finds_no_place_is_told_at_once(counter_with: Any) -> None:
    """Beyond so many checkouts the next one is 503 with Retry-After: nothing is saved, nobody is charged."""
    async with counter_with(checkouts=1) as counter:
        begun, go = asyncio.Event(), asyncio.Event()

        async def slowly(_: UUID) -> None:
            begun.set()
            await go.wait()

        counter.payments.meanwhile = slowly
        first = asyncio.create_task(counter.checkout())
        await begun.wait()
        with pytest.raises(Unavailable) as refused:
            await counter.checkout()
        go.set()

        assert refused.value.headers["Retry-After"] == "1"
        assert (await first).status == 201
        assert (await counter.checkout()).status == 201
        assert await counter.db.fetchval("SELECT count(*) FROM orders") == 2


async def test_a_database_without_room_is_no_order(counter_with: Any) -> None:
    """While every connection is in use a checkout gives up in time for its deadline, with nothing half done."""
    async with counter_with(checkout_patience=0.2) as counter, AsyncExitStack() as held:
        for _ in range(6):
            await held.enter_async_context(counter.db.transaction())
        with pytest.raises(db.Unavailable):
            await counter.checkout(key="k")
        await held.aclose()

        assert counter.payments.asked == []
        assert (await counter.checkout(key="k")).status == 201
        assert await counter.db.fetchval("SELECT count(*) FROM orders") == 1


BEFORE = ["orders.checkout.before-save"]
AFTER = ["orders.checkout.after-save", "orders.payment.before-call", "orders.payment.after-call"]
SETTLING = ["orders.settle.before-commit", "orders.settle.after-commit"]


@pytest.mark.parametrize("point", [*BEFORE, *AFTER, *SETTLING])
async def test_a_checkout_that_dies_anywhere_leaves_one_order_that_settles(counter: Counter, point: str) -> None:
    """At every point: the reconciler and the repeat end with one confirmed order and one answer."""
    with armed(f"{point}=error*1"), pytest.raises(Injected):
        await counter.checkout(key="k")
    await counter.elapse(6)
    await counter.orders.reconcile()
    answer = await counter.checkout(key="k")

    assert answer.status == 201
    order_id = await counter.only_order()
    assert await counter.status(order_id) == "confirmed"
    assert await counter.published(order_id) == ["created", "confirmed"]
    assert (await counter.checkout(key="k")).content() == answer.content()
