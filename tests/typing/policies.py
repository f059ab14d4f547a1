"""Never run, only checked: a guarded function has the types of its own."""

from collections.abc import AsyncGenerator, Callable
from typing import assert_type

import backstay.resilience as r


class Order:
    """What is charged."""


class Receipt:
    """What comes back."""


@r.circuit_breaker("payments")
async def charge(order: Order, amount: int, *, note: str = "") -> Receipt:
    """A coroutine function."""
    return Receipt()


@r.pipeline(r.Retry(2), r.Bulkhead(2))
def charge_plainly(order: Order) -> Receipt:
    """A plain function."""
    return Receipt()


@r.CircuitBreaker("items")
async def items(count: int) -> AsyncGenerator[Receipt, None]:
    """An async generator."""
    yield Receipt()


async def use() -> None:
    """Every form."""
    assert_type(await charge(Order(), 1, note="x"), Receipt)
    assert_type(charge_plainly(Order()), Receipt)
    async for item in items(3):
        assert_type(item, Receipt)
    assert_type(await r.TimeLimiter(1.0).call(charge, Order(), 2), Receipt)
    assert_type(r.Retry(2).call_plain(charge_plainly, Order()), Receipt)
    guard = r.CircuitBreaker("x")
    permit = guard.permit()
    permit.success(1)
    async with guard:
        pass
    stop: Callable[[], None] = guard.on(r.StateTransition, lambda event: print(event.to_state))
    stop()
    with r.ThreadPoolBulkhead(2) as threads:
        assert_type(await threads(charge_plainly)(Order()), Receipt)


def wrong() -> None:
    """Each of these is an error that a checker must see."""
    charge("order", 1)  # type: ignore[arg-type, unused-coroutine] # pyright: ignore[reportArgumentType, reportUnusedCoroutine]
    charge(Order())  # type: ignore[call-arg, unused-coroutine] # pyright: ignore[reportCallIssue]
    charge(Order(), 1, nota="x")  # type: ignore[call-arg, unused-coroutine] # pyright: ignore[reportCallIssue]
    r.CircuitBreaker("x", failure_rat=50)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    r.CircuitBreaker("x", failure_rate="50")  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    r.circuit_breaker("x", min_cals=5)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    r.CircuitBreaker("x").reconfigure(windw=r.last(5))  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    charge_plainly(1)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
