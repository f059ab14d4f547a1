"""Both state machines together: whatever is lost, late, doubled or cancelled, order and money agree in the end."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shop.kernel import Money
from shop.orders import model as orders
from shop.orders.model import Change, Kind, Line, Order, Result
from shop.payments import model as payments
from shop.payments.model import NOT_ASKED, Payment, Reply, Step

AT = datetime(2026, 1, 1, tzinfo=UTC)
PRICE = Money.of("18.00")
SEEN = {
    payments.Status.PROCESSING: Result.PENDING,
    payments.Status.REFUNDING: Result.PENDING,
    payments.Status.CAPTURED: Result.CAPTURED,
    payments.Status.DECLINED: Result.DECLINED,
    payments.Status.VOIDED: Result.VOIDED,
    payments.Status.REFUNDED: Result.REFUNDED,
}
FINAL = (Result.VOIDED, Result.DECLINED, Result.REFUNDED)


def new_order() -> Order:
    line = Line(sku="P1", name="Chai", quantity=1, unit_price=PRICE, total=PRICE, product_version=1)
    return Order(
        id=UUID(int=1),
        customer_id=UUID(int=2),
        lines=(line,),
        total=PRICE,
        payment_method="pm_card_ok",
        created_at=AT,
        updated_at=AT,
    )


class Provider:
    """Idempotent by key; `cancel` is final."""

    def __init__(self) -> None:
        self.declines = False
        self.charge: payments.Outcome | None = None
        self.refunded = False

    def answer(self, step: Step) -> Reply:
        if step is Step.CHARGE:
            self.charge = self.charge or (payments.Outcome.DECLINED if self.declines else payments.Outcome.CAPTURED)
        elif step is Step.CANCEL:
            self.charge = self.charge or payments.Outcome.CANCELLED
        elif step is Step.REFUND:
            assert self.charge is payments.Outcome.CAPTURED
            self.refunded = True
            return Reply(payments.Outcome.REFUNDED)
        return Reply(self.charge or payments.Outcome.UNKNOWN)

    @property
    def taken(self) -> int:
        return (self.charge is payments.Outcome.CAPTURED) - self.refunded


class TheShop(RuleBasedStateMachine):
    """One order, its payment, and everybody who may touch them, at any moment and in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.order = new_order()
        self.payment: Payment | None = None
        self.provider = Provider()
        self.events: list[Result] = []  # published by payments, delivered at any time and any number of times
        self.answers: list[Result] = []  # of payments, still on their way
        self.open: set[Kind] = set()
        self.closed: set[Kind] = set()

    @initialize(declines=st.booleans())
    def card(self, declines: bool) -> None:
        self.provider.declines = declines

    # -- payments

    @rule(answered=st.booleans())
    def charge_arrives(self, answered: bool) -> None:
        if self.payment is None:
            self.payment = Payment.intend(
                UUID(int=9), order_id=self.order.id, customer_id=UUID(int=2), amount=PRICE, method="pm", at=AT
            )
        if answered:
            self.answers.append(SEEN[self.payment.status])

    @precondition(lambda self: self.payment is not None)
    @rule(known=st.booleans(), recorded=st.booleans())
    def payments_works(self, known: bool, recorded: bool) -> None:
        """One step; unless recorded, payments died between the provider's answer and its own commit."""
        assert self.payment is not None
        step = self.payment.next_step(NOT_ASKED if known else None)
        if step is None:
            return
        reply = self.provider.answer(step)
        if recorded:
            self._payment_moves(self.payment.replied(reply))
            self.answers.append(SEEN[self.payment.status])

    def _payment_moves(self, after: Payment) -> None:
        assert self.payment is not None
        if self.payment.status is payments.Status.PROCESSING and after.status is payments.Status.REFUNDING:
            self.events.append(Result.CAPTURED)
        elif after.status is not self.payment.status and SEEN[after.status] in (
            Result.CAPTURED,
            Result.DECLINED,
            Result.REFUNDED,
        ):
            self.events.append(SEEN[after.status])
        self.payment = after

    def _undo(self, kind: Kind) -> Result:
        if self.payment is None:
            if kind is Kind.REFUND:
                return Result.PENDING
            self.payment = Payment.tombstone(UUID(int=9), order_id=self.order.id, reason="void", at=AT)
        else:
            self._payment_moves(self.payment.unwant("undo"))
        return SEEN[self.payment.status]

    # -- orders

    def _change(self, change: Change) -> None:
        assert change.order is self.order or change.order.version == self.order.version + 1
        self.order = change.order
        if change.compensation is not None and change.compensation not in self.closed:
            self.open.add(change.compensation)

    def _settle(self, result: Result) -> None:
        self._change(orders.settle(self.order, orders.Outcome(result=result), AT))

    @precondition(lambda self: self.answers)
    @rule(data=st.data())
    def an_answer_arrives(self, data: st.DataObject) -> None:
        self._settle(self.answers.pop(data.draw(st.integers(0, len(self.answers) - 1))))

    @rule()
    def nobody_answers(self) -> None:
        self._settle(Result.PENDING)

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def an_event_arrives(self, data: st.DataObject) -> None:
        result = data.draw(st.sampled_from(self.events))
        if result is Result.REFUNDED:
            self.closed |= self.open
            self.open.clear()
        self._settle(result)

    @precondition(lambda self: self.order.status in orders.OPEN)
    @rule()
    def the_reconciler_asks(self) -> None:
        if self.payment is None:
            self.charge_arrives(answered=False)
        else:
            self._settle(SEEN[self.payment.status])

    @rule()
    def the_customer_cancels(self) -> None:
        self._change(orders.cancel(self.order, AT, reason="customer"))

    @rule()
    def the_deadline_passes(self) -> None:
        self._change(orders.expire(self.order, AT))

    @rule()
    def inventory_rejects(self) -> None:
        self._change(orders.reject(self.order, AT))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def a_compensation_runs(self, data: st.DataObject) -> None:
        self._compensate(data.draw(st.sampled_from(sorted(self.open))))

    def _compensate(self, kind: Kind) -> None:
        if self._undo(kind) in FINAL:
            self.open.discard(kind)
            self.closed.add(kind)

    @invariant()
    def a_confirmed_order_is_paid(self) -> None:
        if self.order.status is orders.Status.CONFIRMED:
            assert self.payment is not None
            assert self.payment.status is payments.Status.CAPTURED
            assert self.provider.taken == 1

    @invariant()
    def a_cancelled_order_keeps_no_money_unless_somebody_is_at_it(self) -> None:
        if self.order.status is orders.Status.CANCELLED and self.provider.taken:
            at_work = self.payment is not None and self.payment.next_step() is not None
            assert self.open or at_work or Result.CAPTURED in self.events

    def teardown(self) -> None:
        """Everything that was under way goes on: answers and events arrive, jobs run."""
        for _ in range(20):
            for result in (*self.answers, *self.events):
                self._settle(result)
            self.answers.clear()
            if self.payment is not None:
                known: Reply | None = None
                while (step := self.payment.next_step(known)) is not None:
                    known = self.provider.answer(step)
                    self._payment_moves(self.payment.replied(known))
            for kind in list(self.open):
                self._compensate(kind)
            if self.order.status in orders.OPEN:
                self.the_reconciler_asks()
        assert self.order.status in (orders.Status.CONFIRMED, orders.Status.CANCELLED)
        assert not self.open
        assert self.provider.taken == (self.order.status is orders.Status.CONFIRMED)


TestTheShop = TheShop.TestCase
TestTheShop.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def test_the_model_of_this_test_can_fail() -> None:
    """A shop that forgets its compensation keeps the money: the check above sees it."""
    shop = TheShop()
    shop.charge_arrives(answered=False)
    shop.payments_works(known=True, recorded=True)
    shop._settle(Result.CAPTURED)
    shop._change(replace(orders.cancel(shop.order, AT, reason="x"), compensation=None))
    shop.events.clear()
    try:
        shop.a_cancelled_order_keeps_no_money_unless_somebody_is_at_it()
    except AssertionError:
        return
    raise AssertionError("the money of a cancelled order went unnoticed")
