"""The payment's state machine, alone and in any interleaving with a provider, crashes and lost answers."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from shop.kernel import Money
from shop.payments.model import (
    ANSWERS,
    NOT_ASKED,
    Outcome,
    Payment,
    Reply,
    Status,
    Step,
    refund_key,
    retry_after,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
PRICE = Money.of("18.00")
CAPTURED, DECLINED, CANCELLED = (
    Reply(Outcome.CAPTURED),
    Reply(Outcome.DECLINED, "card_declined"),
    Reply(Outcome.CANCELLED),
)
REFUNDED = Reply(Outcome.REFUNDED)


def intent() -> Payment:
    return Payment.intend(UUID(int=1), order_id=UUID(int=2), customer_id=UUID(int=3), amount=PRICE, method="pm", at=AT)


def tombstone() -> Payment:
    return Payment.tombstone(UUID(int=1), order_id=UUID(int=2), reason="cancelled", at=AT)


def test_a_new_payment_is_charged_and_a_stale_one_looked_up_first() -> None:
    """Only where the provider surely knows nothing is it charged without asking."""
    assert intent().next_step(NOT_ASKED) is Step.CHARGE
    assert intent().next_step() is Step.FIND
    assert intent().next_step(CAPTURED) is Step.FIND


@pytest.mark.parametrize(
    ("reply", "status"),
    [(CAPTURED, Status.CAPTURED), (DECLINED, Status.DECLINED), (CANCELLED, Status.VOIDED)],
)
def test_an_answer_ends_a_wanted_payment(reply: Reply, status: Status) -> None:
    """Each final answer to a charge has its own state, and a version of its own."""
    after = intent().replied(reply)

    assert after.status is status
    assert after.version == 2


def test_a_capture_that_nobody_wants_any_more_is_refunded() -> None:
    """Voided while in progress: if the provider took the money all the same, it goes back."""
    unwanted = intent().unwant("cancelled by customer")

    assert unwanted.next_step() is Step.CANCEL
    captured = unwanted.replied(CAPTURED)
    assert captured.status is Status.REFUNDING
    assert captured.next_step() is Step.REFUND
    assert captured.replied(REFUNDED).status is Status.REFUNDED


def test_a_void_is_recorded_only_after_the_provider_promised() -> None:
    """`voided` needs the provider's word: a payment in progress stays so until `cancel` is answered."""
    unwanted = intent().unwant("late")

    assert unwanted.status is Status.PROCESSING
    assert unwanted.replied(CANCELLED).status is Status.VOIDED


def test_a_captured_payment_is_given_back_once() -> None:
    """The second refund, whoever asks, finds the first."""
    refunding = intent().replied(CAPTURED).unwant("out of stock")

    assert refunding.status is Status.REFUNDING
    assert refunding.unwant("again") is refunding
    refunded = refunding.replied(REFUNDED)
    assert refunded.unwant("and again") is refunded
    assert refunded.reason == "out of stock"


@pytest.mark.parametrize("reply", [CAPTURED, DECLINED, CANCELLED, REFUNDED, NOT_ASKED])
def test_final_states_take_no_answer(reply: Reply) -> None:
    """Old news change nothing: declined, voided and refunded are the end."""
    ends = [intent().replied(DECLINED), tombstone(), intent().replied(CAPTURED).unwant("x").replied(REFUNDED)]
    for end in ends:
        assert end.replied(reply) is end
        assert end.next_step(reply) is None
        assert end.unwant("more") is end


def test_a_tombstone_takes_any_amount_and_a_payment_only_its_own() -> None:
    """The same order with another amount is a mistake, unless nothing was to be paid anyway."""
    assert tombstone().same_amount(PRICE)
    assert intent().same_amount(PRICE)
    assert not intent().same_amount(Money.of("18.01"))
    assert not intent().same_amount(Money.of("18.00", "EUR"))


def test_failures_of_the_provider_are_repeated_ever_more_slowly() -> None:
    """One second, doubling, never more than thirty."""
    assert [retry_after(n).total_seconds() for n in (0, 1, 2, 5, 500)] == [1, 2, 4, 30, 30]


def test_there_is_one_refund_key_for_each_payment() -> None:
    """Whoever asks for the refund, the provider sees one key."""
    assert refund_key(UUID(int=1)) == f"{UUID(int=1)}:refund"


@dataclass
class Books:
    """A provider as it must be: idempotent by key, `cancel` final."""

    declines: bool
    charge: Outcome | None = None
    refunds: int = 0
    charges: int = 0

    def answer(self, step: Step) -> Reply:
        if step is Step.CHARGE and self.charge is None:
            self.charge = Outcome.DECLINED if self.declines else Outcome.CAPTURED
            self.charges += self.charge is Outcome.CAPTURED
        if step is Step.CANCEL and self.charge is None:
            self.charge = Outcome.CANCELLED
        if step is Step.REFUND:
            assert self.charge is Outcome.CAPTURED
            self.refunds = 1
            return REFUNDED
        return Reply(self.charge or Outcome.UNKNOWN)

    @property
    def taken(self) -> int:
        return self.charges - self.refunds


@dataclass
class Pursuit:
    """Somebody at work on the payment: a request, or the job. It can die anywhere."""

    seen: Payment
    known: Reply | None
    reply: Reply | None = field(default=None)


class AnyInterleaving(RuleBasedStateMachine):
    """Charges, voids and the job at once, each dying anywhere, answers lost or late."""

    pursuits: Bundle[Pursuit] = Bundle("pursuits")

    def __init__(self) -> None:
        super().__init__()
        self.payment: Payment | None = None
        self.books = Books(declines=False)
        self.voided = False

    @precondition(lambda self: self.payment is None)
    @rule(declines=st.booleans())
    def card(self, declines: bool) -> None:
        self.books.declines = declines

    @rule(target=pursuits)
    def charge(self) -> Pursuit:
        if self.payment is None:
            self.payment = intent()
        return Pursuit(self.payment, NOT_ASKED)

    @rule(target=pursuits)
    def void(self) -> Pursuit:
        self.voided = True
        self.payment = tombstone() if self.payment is None else self.payment.unwant("void")
        return Pursuit(self.payment, None)

    @precondition(lambda self: self.payment is not None)
    @rule(target=pursuits)
    def job(self) -> Pursuit:
        assert self.payment is not None
        return Pursuit(self.payment, None)

    @rule(pursuit=pursuits)
    def ask(self, pursuit: Pursuit) -> None:
        step = pursuit.seen.next_step(pursuit.known)
        if pursuit.reply is None and step is not None:
            pursuit.reply = self.books.answer(step)
            assert pursuit.reply.outcome in ANSWERS[step]

    @rule(pursuit=pursuits)
    def record(self, pursuit: Pursuit) -> None:
        assert self.payment is not None
        if pursuit.reply is not None:
            self.payment = self.payment.replied(pursuit.reply)
            pursuit.seen, pursuit.known, pursuit.reply = self.payment, pursuit.reply, None

    @rule(pursuit=consumes(pursuits))
    def die(self, pursuit: Pursuit) -> None:
        """Between any two steps; what the provider did stays done."""

    @invariant()
    def never_charged_twice_and_never_kept_when_ended(self) -> None:
        assert self.books.charges <= 1
        if self.payment is not None:
            ends = {
                Status.DECLINED: 0,
                Status.VOIDED: 0,
                Status.REFUNDED: 0,
                Status.CAPTURED: 1,
                Status.REFUNDING: None,
            }
            expected = ends.get(self.payment.status)
            assert expected is None or self.books.taken == expected

    def teardown(self) -> None:
        """Left alone, the job brings every payment to its end."""
        if self.payment is None:
            return
        known: Reply | None = None
        while (step := self.payment.next_step(known)) is not None:
            known = self.books.answer(step)
            self.payment = self.payment.replied(known)
        self.never_charged_twice_and_never_kept_when_ended()
        assert self.payment.status not in (Status.PROCESSING, Status.REFUNDING)
        assert self.books.taken == (self.payment.status is Status.CAPTURED)
        if self.voided:
            assert self.books.taken == 0


TestAnyInterleaving = AnyInterleaving.TestCase
TestAnyInterleaving.settings = settings(max_examples=150, stateful_step_count=25, deadline=None)
