"""Payments over HTTP: for services with a token of their own; no route of the gateway leads here."""

from uuid import UUID

from backstay.service import BadRequest, Request, Route, get, post
from shop.contracts.payments import ChargeRequest, PaymentView, ReversalRequest
from shop.payments.service import Payments


def routes(payments: Payments) -> list[Route]:
    """The routes of payments."""

    @post("/payments", scope="payments:charge", internal=True)
    async def charge(body: ChargeRequest, request: Request) -> PaymentView:
        """Charge an order, once: `Idempotency-Key` is the order's id. A decline is an ordinary answer."""
        if request.header("idempotency-key") != str(body.order_id):
            raise BadRequest("send the order's id as Idempotency-Key", slug="idempotency-key-missing")
        return await payments.charge(body)

    @get("/payments/{order_id}", scope="payments:read", internal=True)
    async def find(order_id: UUID) -> PaymentView:
        """The payment of an order."""
        return await payments.find(order_id)

    @post("/payments/{order_id}/void", scope="payments:void", internal=True)
    async def void(order_id: UUID, body: ReversalRequest) -> PaymentView:
        """See to it that the order is not paid, also if the charge comes later. `processing`: ask again."""
        return await payments.void(order_id, body.reason)

    @post("/payments/{order_id}/refund", scope="payments:refund", internal=True)
    async def refund(order_id: UUID, body: ReversalRequest) -> PaymentView:
        """Give the order's money back, once. `processing`: ask again."""
        return await payments.refund(order_id, body.reason)

    return [charge, find, void, refund]
