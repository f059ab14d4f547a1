"""One payment per order, and how it moves whatever the provider answers and in whatever order. Pure.

Invariant: money taken for an unwanted payment is on its way back, and `voided` is reached only after the provider
promised never to charge: from `processing` by its answer, or by a tombstone of which the provider never heard.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Self
from uuid import UUID

from shop.kernel import Money

FIRST_RETRY = 1.0  # seconds until a failed call to the provider is made again by the job; doubles
LAST_RETRY = 30.0  # seconds between two such calls at most


class Status(StrEnum):
    """States of a payment; beside each state, its transitions."""

    PROCESSING = "processing"  # -> captured, declined, voided, refunding (captured, but nobody wants it any more)
    CAPTURED = "captured"  # -> refunding, refunded (at the provider, asked for by nobody here)
    REFUNDING = "refunding"  # -> refunded
    DECLINED = "declined"  # final
    VOIDED = "voided"  # final
    REFUNDED = "refunded"  # final


class Step(StrEnum):
    """Requests to the provider."""

    CHARGE = "charge"
    FIND = "find"
    CANCEL = "cancel"
    REFUND = "refund"


class Outcome(StrEnum):
    """The provider's states of a key."""

    CAPTURED = "captured"
    DECLINED = "declined"
    CANCELLED = "cancelled"  # never charged, and never will be
    REFUNDED = "refunded"
    UNKNOWN = "unknown"  # it never heard of the key


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the provider; `reason` is set when it declined."""

    outcome: Outcome
    reason: str | None = None


OUTSIDE = "refunded at the provider"
"""The reason of a refund that nobody here asked for."""


class Entry(StrEnum):
    """Kinds of entries in the provider's ledger."""

    CAPTURED = "captured"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One entry of the provider's ledger; `charge` is the key of the charge that it is about."""

    entry: Entry
    key: str
    charge: str
    amount: Money
    at: datetime

    @property
    def payment_id(self) -> UUID | None:
        """The payment whose charge it is; None for a charge that is none of ours."""
        try:
            return UUID(self.charge)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Changes:
    """Entries in the order in which the provider made them, and the cursor behind the last one."""

    entries: tuple[LedgerEntry, ...]
    cursor: str | None
    more: bool


ANSWERS: dict[Step, frozenset[Outcome]] = {
    Step.CHARGE: frozenset({Outcome.CAPTURED, Outcome.DECLINED, Outcome.CANCELLED}),
    Step.FIND: frozenset({Outcome.CAPTURED, Outcome.DECLINED, Outcome.CANCELLED, Outcome.UNKNOWN}),
    Step.CANCEL: frozenset({Outcome.CAPTURED, Outcome.DECLINED, Outcome.CANCELLED}),
    Step.REFUND: frozenset({Outcome.REFUNDED}),
}
"""The answers that make sense to each question; with any of them a payment comes nearer to its end."""

NOT_ASKED = Reply(Outcome.UNKNOWN)
"""What is known about a payment whose charge was never sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """The payment of one order. A tombstone (voided before any charge) has no customer, amount or method."""

    id: UUID
    order_id: UUID
    status: Status
    created_at: datetime
    customer_id: UUID | None = None
    amount: Money | None = None
    method: str | None = None
    reason: str | None = None
    unwanted: bool = False
    version: int = 1

    @classmethod
    def intend(
        cls, payment_id: UUID, *, order_id: UUID, customer_id: UUID, amount: Money, method: str, at: datetime
    ) -> Self:
        """Return the decision to charge, saved before the provider gets it."""
        return cls(
            id=payment_id,
            order_id=order_id,
            status=Status.PROCESSING,
            created_at=at,
            customer_id=customer_id,
            amount=amount,
            method=method,
        )

    @classmethod
    def tombstone(cls, payment_id: UUID, *, order_id: UUID, reason: str, at: datetime) -> Self:
        """Return a void that came before any charge: a later charge finds it and is not made."""
        return cls(id=payment_id, order_id=order_id, status=Status.VOIDED, created_at=at, reason=reason, unwanted=True)

    def same_amount(self, amount: Money) -> bool:
        """Return whether a repeated charge has this payment's amount; a tombstone takes any."""
        return self.amount is None or self.amount == amount

    def unwant(self, reason: str) -> "Payment":
        """Return the payment after a void or refund was requested: stopped if possible, else to be refunded."""
        match self.status:
            case Status.CAPTURED:
                return self._moved(Status.REFUNDING, reason=reason, unwanted=True)
            case Status.PROCESSING if not self.unwanted:
                return self._moved(Status.PROCESSING, reason=reason, unwanted=True)
            case _:
                return self

    def replied(self, reply: Reply) -> "Payment":
        """Return the payment after an answer of the provider; itself, if the answer is old news.

        An answer may be worth two steps (a refund whose capture was never recorded): repeat until it gives itself.
        """
        match self.status, reply.outcome:
            case Status.PROCESSING, Outcome.CAPTURED:
                return self._moved(Status.REFUNDING if self.unwanted else Status.CAPTURED, reason=self.reason)
            case Status.PROCESSING, Outcome.DECLINED:
                return self._moved(Status.DECLINED, reason=reply.reason)
            case Status.PROCESSING, Outcome.CANCELLED:
                return self._moved(Status.VOIDED, reason=self.reason)
            case Status.PROCESSING, Outcome.REFUNDED:  # so it was captured first
                return self._moved(Status.REFUNDING if self.unwanted else Status.CAPTURED, reason=self.reason)
            case Status.REFUNDING, Outcome.REFUNDED:
                return self._moved(Status.REFUNDED, reason=self.reason)
            case Status.CAPTURED, Outcome.REFUNDED:
                return self._moved(Status.REFUNDED, reason=reply.reason)
            case _:
                return self

    def next_step(self, known: Reply | None = None) -> Step | None:
        """Return the next request to the provider, given its last answer; None when nothing is open."""
        match self.status:
            case Status.REFUNDING:
                return Step.REFUND
            case Status.PROCESSING if self.unwanted:
                return Step.CANCEL
            case Status.PROCESSING:
                return Step.CHARGE if known is not None and known.outcome is Outcome.UNKNOWN else Step.FIND
            case _:
                return None

    def _moved(self, status: Status, *, reason: str | None, unwanted: bool | None = None) -> "Payment":
        unwanted = self.unwanted if unwanted is None else unwanted
        return replace(self, status=status, reason=reason, unwanted=unwanted, version=self.version + 1)


def refunded_in_full(payment: Payment, entry: LedgerEntry) -> bool:
    """Return whether an entry of the provider's ledger refunds the payment's whole amount."""
    return entry.entry is Entry.REFUNDED and entry.charge == charge_key(payment.id) and entry.amount == payment.amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call to the provider, as the payment's history keeps it; `outcome` is `error` if it gave no answer."""

    step: Step
    outcome: str
    reason: str | None
    took: float  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A payment for the auditor's comparison."""

    id: UUID
    order_id: UUID
    status: Status
    amount: Money | None


def charge_key(payment_id: UUID) -> str:
    """Return the provider's idempotency key of a payment's one charge."""
    return str(payment_id)


def refund_key(payment_id: UUID) -> str:
    """Return the provider's idempotency key of a payment's one refund, whatever its cause."""
    return f"{payment_id}:refund"


def retry_after(failures: int) -> timedelta:
    """Return the wait after that many failures of the provider."""
    return timedelta(seconds=min(LAST_RETRY, FIRST_RETRY * 2 ** min(failures, 10)))
