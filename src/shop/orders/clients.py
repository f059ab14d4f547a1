"""Calls to payments: each behind one pipeline, each failure an outcome that leaves the payment unknown.

fallback ( retry ( circuit breaker ( bulkhead ( time limiter ( call )))))
"""

from collections.abc import Callable
from typing import Protocol
from uuid import UUID

from backstay import resilience as r
from backstay.service import Client, UpstreamError, UpstreamRefused, client
from backstay.telemetry.logs import get_logger
from shop.contracts.payments import ChargeRequest, PaymentView, ReversalRequest
from shop.kernel.resilience import Seconds, policies
from shop.orders.config import Settings
from shop.orders.model import Compensation, Kind, Order, Outcome, Result

SCOPES = "payments:charge payments:read payments:void payments:refund"
DURATIONS = {"payment_retry_wait", "payment_wait_open", "payment_queue_wait", "payment_timeout"}

log = get_logger()


class PaymentsPort(Protocol):
    """Payments, as orders calls it. Nothing is raised for a payments service that is down, slow or in doubt."""

    async def charge(self, order: Order) -> Outcome:
        """Charge the order, once, however often this is called."""

    async def find(self, order_id: UUID) -> Outcome:
        """Return the state of the order's payment; UNKNOWN if payments has none."""

    async def undo(self, compensation: Compensation) -> Outcome:
        """Void or refund a cancelled order's payment; PENDING means again later."""


def pipeline(settings: Settings) -> r.Pipeline:
    """Return the policies between orders and payments: those of `resilience.yaml` with the numbers of the settings."""
    numbers = {
        name: Seconds(value) if name in DURATIONS else value
        for name, value in vars(settings).items()
        if name.startswith("payment_")
    }
    registry = policies({"payments"}, numbers, {"UpstreamError": UpstreamError})
    registry.circuit_breaker("payments").on(r.StateTransition, _tell)
    return registry.pipeline("payments")


class PaymentsClient:
    """Payments over HTTP."""

    def __init__(self, http: Client) -> None:
        self._http = http
        fallback = r.fallback(
            {
                r.Rejected: _because("refused by our own policies"),
                r.CallNotPermitted: _because("circuit breaker open"),
                r.BulkheadFull: _because("too many calls in flight"),
                r.DeadlineExceeded: _because("no time left"),
                TimeoutError: _because("no answer in time"),
                ConnectionError: _because("payments unreachable"),
                UpstreamError: _because("payments failed"),
                UpstreamRefused: _refused,
            }
        )
        self.charge = fallback(self._charge)
        self.find = fallback(self._find)
        self.undo = fallback(self._undo)

    async def _charge(self, order: Order) -> Outcome:
        request = ChargeRequest(
            order_id=order.id, customer_id=order.customer_id, amount=order.total, method=order.payment_method
        )
        key = {"Idempotency-Key": str(order.id)}
        return _outcome(await self._http.post("/payments", request, PaymentView, headers=key))

    async def _find(self, order_id: UUID) -> Outcome:
        try:
            return _outcome(await self._http.get(f"/payments/{order_id}", PaymentView))
        except UpstreamRefused as error:
            if error.status == 404:
                return Outcome(result=Result.UNKNOWN)
            raise

    async def _undo(self, compensation: Compensation) -> Outcome:
        verb = "void" if compensation.kind is Kind.VOID else "refund"
        path, body = f"/payments/{compensation.order_id}/{verb}", ReversalRequest(reason=compensation.reason)
        key = {"Idempotency-Key": compensation.key}
        return _outcome(await self._http.post(path, body, PaymentView, headers=key))


def payments_client(guard: r.Pipeline) -> Client:
    """Return the connection to payments, to be owned by the service."""
    return client("lb://payments", guard, scope=SCOPES)


def _outcome(payment: PaymentView) -> Outcome:
    result = Result.PENDING if payment.status == "processing" else Result(payment.status)
    return Outcome(result=result, payment_id=payment.payment_id, reason=payment.reason)


def _because(reason: str) -> Callable[..., Outcome]:
    return lambda _error, *_: Outcome(result=Result.PENDING, reason=reason)


def _refused(error: Exception, *_: object) -> Outcome:
    log.error("payments.refused", error=str(error))  # a mistake of ours: it shows, and the order waits
    return Outcome(result=Result.PENDING, reason="payments refused the request")


def _tell(event: r.StateTransition) -> None:
    log.warning(
        "circuit_breaker.state_transition",
        name=event.name,
        from_state=event.from_state.value,
        to_state=event.to_state.value,
    )
