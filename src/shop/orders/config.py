"""Settings of orders, and its fault points."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from backstay.service import Seconds
from shop.settings import ShopSettings

Count = Annotated[int, Meta(ge=1)]

FAULT_POINTS: tuple[str, ...] = (
    "orders.checkout.before-save",
    "orders.checkout.after-save",
    "orders.payment.before-call",
    "orders.payment.after-call",
    "orders.settle.before-commit",
    "orders.settle.after-commit",
    "orders.cancel.before-commit",
    "orders.cancel.after-commit",
    "orders.reconcile.before-claim",
    "orders.reconcile.after-claim",
    "orders.compensation.before-claim",
    "orders.compensation.after-claim",
    "orders.compensation.before-call",
    "orders.compensation.after-call",
    "orders.compensation.before-commit",
    "orders.compensation.after-commit",
)
"""Both sides of each commit and of each call to payments."""


@dataclass(frozen=True, kw_only=True)
class Settings(ShopSettings):
    """Settings of orders. Durations are seconds, rates percent."""

    database_connections: Annotated[int, Meta(ge=2)] = 8
    """Connections to the database at most."""
    payment_methods: tuple[str, ...] = (
        "pm_card_ok",
        "pm_card_declined",
        "pm_card_insufficient_funds",
        "pm_card_slow",
        "pm_card_error_then_ok",
    )
    """Methods a checkout may name."""
    checkout_deadline: Seconds = 3.0
    """A checkout answers within this time; a payment that takes longer settles later."""
    checkout_reserve: Annotated[float, Meta(ge=0)] = 0.5
    """What of it is kept for saving the outcome."""
    checkout_patience: Seconds = 1.5
    """How long it waits for a database connection before it gives up with nothing done."""
    checkouts: Count = 200
    """Checkouts at once; more are told to come again."""
    checkout_locked_for: Seconds = 5.0
    """For how long a checkout keeps repeats of its key away."""
    payment_timeout: Seconds = 1.0
    """One attempt of a call to payments."""
    payment_attempts: Count = 2
    payment_retry_wait: Seconds = 0.1
    """Before the second attempt, jittered by half."""
    payment_retry_ratio: Annotated[float, Meta(ge=0, le=1)] = 0.1
    """Retries for each call."""
    payment_retry_minimum: Annotated[float, Meta(ge=0)] = 2.0
    """Retries a second that are allowed whatever the ratio."""
    payment_failure_rate: Annotated[float, Meta(gt=0, le=100)] = 50.0
    """Failed calls at which the circuit breaker opens."""
    payment_window: Count = 20
    """Calls it looks at."""
    payment_min_calls: Count = 5
    """Calls it needs for a verdict."""
    payment_wait_open: Seconds = 5.0
    """How long it stays open, and how long it waits for the outcome of its probes."""
    payment_probes: Count = 3
    """Calls it then lets pass."""
    payment_calls: Count = 50
    """Calls in flight."""
    payment_queue_wait: Annotated[float, Meta(ge=0)] = 0.25
    """How long a call waits for one of these places."""
    first_check: Seconds = 5.0
    """When the reconciler first looks after an order; doubles each time."""
    last_check: Seconds = 30.0
    """The longest pause between two looks, and between two tries to undo a payment."""
    patience: Seconds = 900.0
    """How long an order waits for its payment before it is cancelled."""
    reconcile_interval: Seconds = 1.0
    compensate_interval: Seconds = 0.5
    batch: Count = 50
    """Orders and compensations taken in one go."""
    at_once: Count = 10
    """How many of them it works on at the same time."""

    def problems(self) -> list[str]:
        problems = super().problems()
        if self.checkout_locked_for <= self.checkout_deadline:
            problems.append(
                f"CHECKOUT_LOCKED_FOR={self.checkout_locked_for:g}: must be longer than "
                f"CHECKOUT_DEADLINE={self.checkout_deadline:g}, or a repeat would work on the same order"
            )
        return problems
