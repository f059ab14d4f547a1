"""Payments over HTTP: for services with a token of their own; no route of the gateway leads here."""

from uuid import UUID

from backstay.service import BadRequest, Feed, Request, Route, decode_cursor, encode_cursor, get, post
from shop.contracts import audit as audited
from shop.contracts.payments import ChargeRequest, PaymentView, ReversalRequest
from shop.payments import events
from shop.payments.service import Payments


def routes(payments: Payments) -> list[Route]:
    """Return the routes of payments."""

    @post("/payments", scope="payments:charge", internal=True)
    async def charge(body: ChargeRequest, request: Request) -> PaymentView:
        """Charge an order, once: `Idempotency-Key` is the order's id. A decline is an ordinary answer."""
        if request.header("idempotency-key") != str(body.order_id):
            raise BadRequest("send the order's id as Idempotency-Key", slug="idempotency-key-missing")
        return await payments.charge(body)

    @get("/payments/{order_id}", scope="payments:read", internal=True)
    async def find(order_id: UUID) -> PaymentView:
        """Return the payment of an order."""
        return await payments.find(order_id)

    @post("/payments/{order_id}/void", scope="payments:void", internal=True)
    async def void(order_id: UUID, body: ReversalRequest) -> PaymentView:
        """Prevent the order's payment, also if the charge comes later. `processing`: repeat the request."""
        return await payments.void(order_id, body.reason)

    @post("/payments/{order_id}/refund", scope="payments:refund", internal=True)
    async def refund(order_id: UUID, body: ReversalRequest) -> PaymentView:
        """Refund the order, once. `processing`: repeat the request."""
        return await payments.refund(order_id, body.reason)

    @get("/internal/audit", scope="audit:read", internal=True, hidden=True)
    async def audit(since: str | None = None, limit: audited.Limit = audited.LIMIT) -> Feed[audited.PaymentFact]:
        """Payments in the order in which they changed last, for the auditor."""
        after = decode_cursor(since, audited.Change, UUID, name="since") or (0, UUID(int=0))
        found = await payments.audit(after, limit=limit + 1)
        return Feed.of([(place, events.fact(payment)) for place, payment in found], since=since, limit=limit)

    @get("/internal/audit/provider", scope="audit:read", internal=True, hidden=True)
    async def provider(since: str | None = None, limit: audited.Limit = audited.LIMIT) -> Feed[audited.ProviderFact]:
        """Return the provider's own ledger, for the auditor: nothing of it comes from our tables."""
        after = decode_cursor(since, str, name="since")
        changes = await payments.ledger(after[0] if after else None, limit=limit)
        cursor = encode_cursor(changes.cursor) if changes.cursor is not None else None
        return Feed([events.entry(entry) for entry in changes.entries], cursor, changes.more)

    return [charge, find, void, refund, audit, provider]
