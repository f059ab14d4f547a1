"""Filling the shop: catalog and stock by the admin API through the gateway, until orders has its copy.

Doing it again changes nothing: a product that is there stays, and so does a stock that was ever set.
"""

import asyncio
from collections.abc import Iterable, Mapping

from backstay.db import Database
from backstay.dev.home import Home, Running
from backstay.dev.screen import Screen
from backstay.dev.waiting import until
from backstay.dev.web import Web
from lab.client.user import Shopper
from lab.system.context import Stage, remote
from lab.system.dataset import NORTHWIND, Product, read

AT_ONCE = 8  # requests in flight
COPY_TIMEOUT = 30.0  # seconds for the events to reach orders
KNOWN = """
SELECT count(*) FROM unnest($1::text[], $2::int[]) AS wanted (sku, least)
JOIN products USING (sku) JOIN stock USING (sku)
WHERE stock.version >= 1 AND stock.available >= wanted.least
"""


class NotCopied(RuntimeError):
    """Orders has not received every product in time."""


async def seed(stage: Stage) -> int:
    """Load Northwind and wait until it can be ordered; returns how many products there are."""
    products = read(NORTHWIND).products
    admin = stage.admin()
    await admin.login()
    await load(admin, products.values(), {sku: product.stock for sku, product in products.items()})
    await copied(stage.running.databases["orders"], dict.fromkeys(products, 0))
    return len(products)


async def seed_running(home: Home, running: Running, screen: Screen) -> None:
    """`shop seed`."""
    async with Web(running.gateway) as web:
        with screen.step("catalog and stock") as step:
            step.text = f"catalog and stock: {await seed(remote(home, running, screen, web))} products"


async def load(
    admin: Shopper,
    products: Iterable[Product],
    stock: Mapping[str, int],
    *,
    sell_all: bool = False,
    reset: bool = False,
) -> None:
    """Create the products and set their stock, several at once.

    `sell_all` makes discontinued ones available, `reset` overrules stock that was set before: so many units are free
    then, beside those that orders hold.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(product: Product) -> None:
        async with gate:
            await _product(admin, product, available=sell_all or not product.discontinued)
            await _stock(admin, product, stock[product.sku], reset=reset)

    async with asyncio.TaskGroup() as group:
        for product in products:
            group.create_task(one(product))


async def copied(orders_database: str, units: Mapping[str, int], *, timeout: float = COPY_TIMEOUT) -> None:
    """Wait until orders' copy of the catalog has all of these, with as many units as this; NotCopied otherwise."""
    wanted, found = list(units), 0

    async with Database("orders-copy", dsn=orders_database, max_size=1) as database:

        async def complete() -> bool:
            nonlocal found
            found = await database.fetchval(KNOWN, wanted, list(units.values()))
            return bool(found == len(wanted))

        if not await until(complete, timeout=timeout):
            raise NotCopied(
                f"orders knows {found} of {len(wanted)} products with their stock after {timeout:g} s; "
                "its log says what its consumer waits for: ./shop logs orders"
            )


async def _product(admin: Shopper, product: Product, *, available: bool) -> None:
    body = {
        "sku": product.sku,
        "name": product.name,
        "category": product.category,
        "supplier": product.supplier,
        "unit": product.unit,
        "price": {"amount": str(product.price), "currency": "USD"},
        "available": available,
    }
    reply = (await admin.ask("POST", "/api/v1/products", body)).expect(201, 409)
    if reply.status == 409 and available:
        (await admin.ask("PATCH", f"/api/v1/products/{product.sku}", {"available": True})).expect(200)


async def _stock(admin: Shopper, product: Product, units: int, *, reset: bool) -> None:
    path = f"/api/v1/stock/{product.sku}"
    known = (await admin.ask("GET", path)).expect(200, 404)
    held = known.body["reserved"] if known.status == 200 else 0
    if not reset and known.status == 200 and known.body["version"] > 0:
        return
    body = {"on_hand": units + held, "reorder_level": product.reorder_level}
    (await admin.ask("PUT", path, body)).expect(200)
