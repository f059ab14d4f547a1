"""HTTP in: admins read the stock, count it, and fill it up."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from backstay.service import (
    TAGGED,
    Answer,
    Conditions,
    Feed,
    IdempotencyKey,
    Page,
    Route,
    decode_cursor,
    encode_cursor,
    get,
    post,
    put,
)
from shop.contracts import audit as audited
from shop.inventory.events import fact
from shop.inventory.model import ON_HAND_LIMIT, Level, Line
from shop.inventory.service import Stock, tag_of

PAGE = 50  # items of a page unless asked for otherwise
PAGE_LIMIT = 100

Limit = Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]
Units = Annotated[int, Meta(ge=0, le=ON_HAND_LIMIT)]
Sku = Annotated[str, Meta(pattern="^[A-Z0-9](?:[A-Z0-9-]{0,30}[A-Z0-9])?$")]
Version = Annotated[int, Meta(ge=1, le=2**62)]
SomeUnits = Annotated[int, Meta(ge=1, le=ON_HAND_LIMIT)]


class StockView(msgspec.Struct, frozen=True, kw_only=True):
    """The stock of one product. `available` is what an order can still get; version 0: nothing was ever set."""

    sku: str
    on_hand: int
    reserved: int
    available: int
    reorder_level: int
    version: int
    updated_at: datetime


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One change of a product's stock; the lines of a product add up to its stock."""

    version: int
    kind: str
    on_hand: int
    reserved: int
    order_id: UUID | None
    at: datetime


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """A counted quantity, and the level below which to order more (left out: unchanged)."""

    on_hand: Units
    reorder_level: Units | None = None


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """Units that came in."""

    quantity: SomeUnits


def routes(stock: Stock) -> list[Route]:
    """Inventory's routes, below the API's prefix."""

    @get("/stock", scope="inventory:read")
    async def list_stock(limit: Limit = PAGE, cursor: str | None = None) -> Page[StockView]:
        """List the stock of all products, by sku."""
        after = decode_cursor(cursor, str)
        found = await stock.page(after=after[0] if after else None, limit=limit + 1)
        following = encode_cursor(found[limit - 1].sku) if len(found) > limit else None
        return Page([_view(level) for level in found[:limit]], following)

    @get("/stock/{sku}", scope="inventory:read", answers=TAGGED)
    async def find_stock(sku: str) -> Answer[StockView]:
        """Read the stock of one product; its ETag is its version, once it was set."""
        return _tagged(await stock.find(sku))

    @get("/stock/{sku}/ledger", scope="inventory:read")
    async def list_ledger(sku: str, limit: Limit = PAGE, cursor: str | None = None) -> Page[LedgerLine]:
        """List every change of a product's stock, the newest first."""
        before = decode_cursor(cursor, Version)
        found = await stock.ledger(sku, before=before[0] if before else None, limit=limit + 1)
        following = encode_cursor(found[limit - 1].version) if len(found) > limit else None
        return Page([_line(line) for line in found[:limit]], following)

    @put("/stock/{sku}", scope="inventory:write")
    async def set_stock(sku: Sku, body: Count, conditions: Conditions) -> Answer[StockView]:
        """Set what is on hand of a product, as counted; with If-Match, only if nothing has changed since."""
        counted = stock.count(sku, on_hand=body.on_hand, reorder_level=body.reorder_level, conditions=conditions)
        return _tagged(await counted)

    @post("/stock/{sku}/restock", scope="inventory:write")
    async def restock(sku: str, body: Delivery, key: IdempotencyKey) -> Answer[StockView]:
        """Add units that came in; a repeat with the same key adds nothing."""
        return await stock.restock(sku, quantity=body.quantity, key=key, view=_view)

    return [list_stock, find_stock, list_ledger, set_stock, restock]


def internal(stock: Stock) -> list[Route]:
    """Routes for other services of the shop; the gateway leads to none of them."""

    @get("/internal/audit", scope="audit:read", internal=True, hidden=True)
    async def audit(since: str | None = None, limit: audited.Limit = audited.LIMIT) -> Feed[audited.ReservationFact]:
        """Reservations in the order in which they changed last, for the auditor."""
        after = decode_cursor(since, audited.Change, UUID, name="since") or (0, UUID(int=0))
        found = await stock.audit(after, limit=limit + 1)
        return Feed.of([(place, fact(reservation)) for place, reservation in found], since=since, limit=limit)

    return [audit]


def _tagged(level: Level) -> Answer[StockView]:
    tag = tag_of(level)
    return Answer(_view(level), headers={"ETag": tag} if tag else {})


def _view(level: Level) -> StockView:
    return StockView(
        sku=level.sku,
        on_hand=level.on_hand,
        reserved=level.reserved,
        available=level.available,
        reorder_level=level.reorder_level,
        version=level.version,
        updated_at=level.updated_at,
    )


def _line(line: Line) -> LedgerLine:
    return LedgerLine(
        version=line.version,
        kind=line.kind,
        on_hand=line.on_hand,
        reserved=line.reserved,
        order_id=line.order_id,
        at=line.at,
    )
