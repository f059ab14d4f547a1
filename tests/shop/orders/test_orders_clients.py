"""The way to payments: what each answer and each failure means to an order, and the order of the policies."""

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from backstay import resilience as r
from backstay.discovery import NoInstance
from backstay.errors import ConfigError
from backstay.service import Client, UpstreamError, UpstreamRefused
from shop.contracts.payments import PaymentView
from shop.kernel import Money
from shop.orders.clients import PaymentsClient, pipeline
from shop.orders.config import Settings
from shop.orders.model import Compensation, Kind, Order, Outcome, Result

AT = datetime(2026, 1, 1, tzinfo=UTC)
ORDER = Order(
    id=UUID(int=1),
    customer_id=UUID(int=2),
    lines=(),
    total=Money.of("18.00"),
    payment_method="pm_card_ok",
    created_at=AT,
    updated_at=AT,
)
VOID = Compensation(order_id=ORDER.id, kind=Kind.VOID, reason="late", attempts=1, created_at=AT)


class FakeHttp:
    """Gives what it was given, and remembers what was sent."""

    def __init__(self, gives: Any) -> None:
        self.gives = gives
        self.sent: list[tuple[Any, ...]] = []

    async def post(self, path: str, body: Any, kind: type[Any], *, headers: dict[str, str]) -> Any:
        self.sent.append((path, body, headers["Idempotency-Key"]))
        return await self.get(path, kind)

    async def get(self, path: str, kind: type[Any]) -> Any:
        if isinstance(self.gives, Exception):
            raise self.gives
        return self.gives


def client(gives: Any) -> tuple[PaymentsClient, FakeHttp]:
    http = FakeHttp(gives)
    return PaymentsClient(cast(Client, http)), http


def view(status: Any) -> PaymentView:
    return PaymentView(order_id=ORDER.id, status=status, payment_id=UUID(int=9), amount=ORDER.total)


@pytest.mark.parametrize(
    ("status", "result"),
    [
        ("captured", Result.CAPTURED),
        ("declined", Result.DECLINED),
        ("voided", Result.VOIDED),
        ("refunded", Result.REFUNDED),
        ("processing", Result.PENDING),
    ],
)
async def test_every_status_of_a_payment_is_an_outcome(status: str, result: Result) -> None:
    """Whatever payments may say is understood, by each of the calls."""
    payments, _ = client(view(status))

    for outcome in (await payments.charge(ORDER), await payments.find(ORDER.id), await payments.undo(VOID)):
        assert outcome == Outcome(result=result, payment_id=UUID(int=9))


FAILURES = {
    "circuit breaker open": r.CallNotPermitted("open"),
    "too many calls in flight": r.BulkheadFull("full"),
    "refused by our own policies": r.BudgetExhausted("spent"),
    "no time left": r.DeadlineExceeded("late"),
    "no answer in time": TimeoutError(),
    "payments unreachable": NoInstance("none"),
    "payments failed": UpstreamError("payments", 503),
    "payments refused the request": UpstreamRefused("payments", 422),
}


@pytest.mark.parametrize("reason", FAILURES)
async def test_every_failure_means_that_nobody_could_tell(reason: str) -> None:
    """Down, slow, refused, broken: the order waits, with the reason; nothing is raised."""
    payments, _ = client(FAILURES[reason])

    for outcome in (await payments.charge(ORDER), await payments.find(ORDER.id), await payments.undo(VOID)):
        assert outcome == Outcome(result=Result.PENDING, reason=reason)


async def test_an_order_that_payments_does_not_know_is_no_failure() -> None:
    """404 to the lookup is an answer: the reconciler charges then. To a refund it is not final."""
    payments, _ = client(UpstreamRefused("payments", 404))

    assert (await payments.find(ORDER.id)).result is Result.UNKNOWN
    assert (await payments.undo(VOID)).result is Result.PENDING


async def test_each_call_carries_its_key() -> None:
    """The order's id for the charge, `<order>:<kind>` to undo it."""
    payments, http = client(view("processing"))
    await payments.charge(ORDER)
    await payments.undo(VOID)

    assert [(path, key) for path, _, key in http.sent] == [
        ("/payments", str(ORDER.id)),
        (f"/payments/{ORDER.id}/void", f"{ORDER.id}:void"),
    ]


async def test_a_mistake_of_ours_is_still_raised() -> None:
    """Only what a dependency can do to us is answered by the fallback."""
    payments, _ = client(KeyError("bug"))
    with pytest.raises(KeyError):
        await payments.charge(ORDER)


def test_the_policies_lie_as_designed() -> None:
    """retry ( circuit breaker ( bulkhead ( time limiter ))), with the numbers of the settings."""
    policies = pipeline(Settings())

    assert [type(layer) for layer in policies.layers] == [r.Retry, r.CircuitBreaker, r.Bulkhead, r.TimeLimiter]
    assert policies.explain() == []
    assert policies.breaker is not None
    config = policies.breaker.config
    assert (config.window.calls, config.min_calls, config.wait_open) == (20, 5, 5.0)


def test_every_transition_of_the_breaker_is_logged() -> None:
    """The failure story, and whoever is on call, reads it in the logs."""
    breaker = pipeline(Settings()).breaker
    assert breaker is not None
    with capture_logs() as logs:
        breaker.transition_to(r.State.OPEN)

    [line] = logs
    assert (line["event"], line["name"], line["to_state"]) == ("circuit_breaker.state_transition", "payments", "OPEN")


def test_a_lock_shorter_than_the_deadline_is_refused_at_start() -> None:
    """A repeat must not work on an order whose checkout may still run."""
    with pytest.raises(ConfigError, match="CHECKOUT_LOCKED_FOR"):
        Settings.read({"CHECKOUT_LOCKED_FOR": "2"})
