"""HTTP in: admins read figures, and have them built anew."""

from datetime import date, datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from backstay.service import Answer, Page, Route, decode_cursor, encode_cursor, get, post
from shop.analytics.model import CustomerSales, Generation, ProductSales, Ranking, Revenue, State
from shop.analytics.service import Analytics
from shop.kernel import Money

PAGE = 50  # items of a page unless asked for otherwise
PAGE_LIMIT = 100

Digits = Annotated[str, Meta(pattern=r"^-?\d{1,18}(\.\d\d)?$")]
Limit = Annotated[int, Meta(ge=1, le=PAGE_LIMIT)]


class RevenueView(msgspec.Struct, frozen=True, kw_only=True):
    """Worth of confirmed orders, the part of it cancelled afterwards, and what is left."""

    day: date | None
    orders: int
    confirmed: Money
    cancelled_orders: int
    cancelled: Money
    net: Money


class PaymentsView(msgspec.Struct, frozen=True, kw_only=True):
    """Captured and refunded amounts, also of orders that were never confirmed."""

    captured: Money
    refunded: Money


class RevenueReport(msgspec.Struct, frozen=True, kw_only=True):
    """Revenue in all and by day (UTC), an entry per currency; days without a move are left out."""

    totals: list[RevenueView]
    payments: list[PaymentsView]
    days: list[RevenueView]


class ProductView(msgspec.Struct, frozen=True, kw_only=True):
    """Sales of a product in orders that are confirmed and stayed so."""

    sku: str
    name: str
    orders: int
    units: int
    revenue: Money


class CustomerView(msgspec.Struct, frozen=True, kw_only=True):
    """Orders of a customer; revenue counts orders that are confirmed and stayed so."""

    customer_id: UUID
    orders: int
    confirmed: int
    revenue: Money


class FunnelView(msgspec.Struct, frozen=True, kw_only=True):
    """The number of orders that ever reached each stage; `completed` were confirmed and stayed so."""

    created: int
    payment_pending: int
    confirmed: int
    cancelled: int
    refunded: int
    reserved: int
    rejected: int
    completed: int


class GenerationView(msgspec.Struct, frozen=True, kw_only=True):
    """One build of the figures."""

    generation: int
    state: State
    started_at: datetime
    swapped_at: datetime | None


def routes(analytics: Analytics) -> list[Route]:
    """Return the routes of analytics, below the API's prefix."""

    @get("/analytics/revenue", scope="analytics:read")
    async def read_revenue(since: date | None = None, until: date | None = None) -> RevenueReport:
        """Read revenue in all, and by day: the last 31, or the requested ones."""
        days = await analytics.revenue_by_day(since=since, until=until)
        return RevenueReport(
            totals=[_revenue(found) for found in await analytics.revenue()],
            payments=[PaymentsView(captured=taken, refunded=back) for taken, back in await analytics.payments()],
            days=[_revenue(found) for found in days],
        )

    @get("/analytics/top-products", scope="analytics:read")
    async def list_top_products(
        by: Ranking = Ranking.UNITS, limit: Limit = PAGE, cursor: str | None = None
    ) -> Page[ProductView]:
        """List products by units or revenue sold, the best first."""
        after = decode_cursor(cursor, Digits, str, str)
        found = await analytics.top_products(by, after=after, limit=limit + 1)
        following = encode_cursor(*found[limit - 1].place(by)) if len(found) > limit else None
        return Page([_product(sales) for sales in found[:limit]], following)

    @get("/analytics/customers", scope="analytics:read")
    async def list_customers(limit: Limit = PAGE, cursor: str | None = None) -> Page[CustomerView]:
        """List what each customer ordered, by customer id."""
        after = decode_cursor(cursor, UUID, str)
        found = await analytics.customers(after=after, limit=limit + 1)
        following = encode_cursor(*found[limit - 1].place) if len(found) > limit else None
        return Page([_customer(sales) for sales in found[:limit]], following)

    @get("/analytics/funnel", scope="analytics:read")
    async def read_funnel() -> FunnelView:
        """Read how many orders reached each stage."""
        found = await analytics.funnel()
        return FunnelView(
            created=found.created,
            payment_pending=found.payment_pending,
            confirmed=found.confirmed,
            cancelled=found.cancelled,
            refunded=found.refunded,
            reserved=found.reserved,
            rejected=found.rejected,
            completed=found.completed,
        )

    @get("/analytics/generations", scope="analytics:read")
    async def list_generations() -> Page[GenerationView]:
        """List the builds of the figures, the newest first."""
        return Page([_generation(found) for found in await analytics.generations()])

    @post("/analytics/rebuild", scope="analytics:read", role="admin", status=202)
    async def rebuild() -> Answer[GenerationView]:
        """Count everything again from the first event; the old figures answer until the new ones are complete."""
        opened = await analytics.rebuild()
        return Answer(_generation(opened), 202, {"Location": "/api/v1/analytics/generations"})

    return [read_revenue, list_top_products, list_customers, read_funnel, list_generations, rebuild]


def _revenue(found: Revenue) -> RevenueView:
    return RevenueView(
        day=found.day,
        orders=found.orders,
        confirmed=Money(found.confirmed, found.currency),
        cancelled_orders=found.cancelled_orders,
        cancelled=Money(found.cancelled, found.currency),
        net=Money(found.net, found.currency),
    )


def _product(sales: ProductSales) -> ProductView:
    return ProductView(sku=sales.sku, name=sales.name, orders=sales.orders, units=sales.units, revenue=sales.revenue)


def _customer(sales: CustomerSales) -> CustomerView:
    return CustomerView(
        customer_id=sales.customer_id, orders=sales.orders, confirmed=sales.confirmed, revenue=sales.revenue
    )


def _generation(found: Generation) -> GenerationView:
    return GenerationView(
        generation=found.generation, state=found.state, started_at=found.started_at, swapped_at=found.swapped_at
    )
