"""One key is one order, whatever happens around it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import uuid4

import pytest

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

Audit = Callable[[list[str]], Coroutine[Any, Any, dict[str, str]]]
BODY = {"lines": [{"sku": "NW-001", "quantity": 1}], "payment_method": "pm_card_ok"}


async def test_two_checkouts_with_one_key_at_the_same_moment(customer, audit: Audit) -> None:
    """Both callers get the same order; it is charged once."""
    key = uuid4().hex
    replies = await asyncio.gather(*(customer.order(key=key) for _ in range(5)))

    assert len({reply.body["id"] for reply in replies}) == 1
    assert {reply.status for reply in replies} <= {201, 202}
    assert len(await customer.shopper.every("/api/v1/orders")) == 1
    assert await audit(customer.orders) == {customer.orders[0]: "confirmed"}


async def test_a_repeat_gets_the_first_answer_even_when_the_order_has_moved_on(customer) -> None:
    """The stored answer comes back byte for byte after the order was cancelled."""
    key = uuid4().hex
    first = (await customer.order(key=key)).expect(201, 202)
    (await customer.cancel(first.body["id"])).expect(200, 202)

    assert (await customer.order(key=key)).body == first.body


async def test_a_key_belongs_to_its_body(customer) -> None:
    """The same key for something else is 422 and orders nothing."""
    key = uuid4().hex
    (await customer.order(key=key)).expect(201, 202)
    other = {**BODY, "lines": [{"sku": "NW-001", "quantity": 2}]}

    assert (await customer.once(other, key=key)).status == 422
    assert len(await customer.shopper.every("/api/v1/orders")) == 1


async def test_a_key_belongs_to_its_owner(new_customer) -> None:
    """Two customers may choose the same key without meeting."""
    key = uuid4().hex
    one, two = await new_customer(), await new_customer()
    first, second = await one.order(key=key), await two.order(key=key)

    assert first.expect(201, 202).body["id"] != second.expect(201, 202).body["id"]


@pytest.mark.parametrize("key", [None, "", "k" * 256])
async def test_a_checkout_needs_a_key(customer, key: str | None) -> None:
    """No key, or one that can't be kept, is 400 and orders nothing."""
    assert (await customer.once(BODY, key=key)).status == 400
    assert await customer.shopper.every("/api/v1/orders") == []


async def test_a_refusal_is_not_kept(customer) -> None:
    """A request that was wrong may be put right under the same key."""
    key = uuid4().hex
    assert (await customer.once({**BODY, "payment_method": "cash"}, key=key)).status == 422

    (await customer.order(key=key)).expect(201, 202)
