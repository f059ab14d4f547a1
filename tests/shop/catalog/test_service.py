"""The catalog's use cases on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pytest

import shop.catalog
from backstay.db import Database
from backstay.outbox import Outbox
from backstay.service import Conflict, NotFound, Unprocessable
from backstay.testing import FakeClock
from shop.catalog.model import Details, Filter, Place, Product, Sort
from shop.catalog.service import Products
from shop.kernel import Money

MIGRATIONS = Path(shop.catalog.__file__).parent / "migrations"
CHAI = Details(name="Chai", category="Beverages", price=Money.of("18.00"))


@dataclass(frozen=True, slots=True)
class Shelf:
    """The service, its database and its clock."""

    db: Database
    products: Products
    clock: FakeClock
    published: Any

    async def all(self, sort: Sort, *, limit: int, wanted: Filter | None = None) -> list[Product]:
        """Every page, one after the other."""
        found: list[Product] = []
        after: Place | None = None
        while True:
            items, after = await self.products.page(wanted or Filter(), sort, after=after, limit=limit)
            found += items
            if after is None:
                return found


@pytest.fixture
async def shelf(database: str, published: Any) -> AsyncIterator[Shelf]:
    db, clock = Database("catalog", dsn=database, migrations=MIGRATIONS), FakeClock()
    products = Products(db, Outbox(db), clock=clock)
    async with db:
        yield Shelf(db, products, clock, published)


async def test_changes_at_the_same_moment_follow_each_other(shelf: Shelf):
    """Twenty admins at once: no change is lost, versions have no gap, and events are in the order of the versions."""
    await shelf.products.create("NW-001", CHAI)

    def dearer(details: Details) -> Details:
        return replace(details, price=details.price + Money.of("1.00"))

    await asyncio.gather(*(shelf.products.change("NW-001", dearer) for _ in range(20)))

    product = await shelf.products.find("NW-001")
    assert (product.version, product.details.price) == (21, Money.of("38.00"))
    versions = [body["version"] for _, body in await shelf.published(shelf.db)]
    assert versions == list(range(1, 22))


async def test_of_many_changes_to_one_version_one_is_made(shelf: Shelf):
    """Who read the same version competes; the others are told which version there is now."""
    await shelf.products.create("NW-001", CHAI)

    async def rename(n: int) -> Product | Conflict:
        try:
            return await shelf.products.change("NW-001", lambda old: replace(old, name=f"Tea {n}"), version=1)
        except Conflict as stale:
            return stale

    outcomes = await asyncio.gather(*(rename(n) for n in range(10)))

    made = [outcome for outcome in outcomes if isinstance(outcome, Product)]
    assert [product.version for product in made] == [2]
    assert {outcome.members["version"] for outcome in outcomes if isinstance(outcome, Conflict)} == {2}
    assert len(await shelf.published(shelf.db)) == 2


async def test_of_many_creations_of_one_sku_one_is_made(shelf: Shelf):
    """A sku is taken by exactly one of those who want it at the same moment, with one event."""

    async def create(n: int) -> bool:
        try:
            await shelf.products.create("NW-001", replace(CHAI, name=f"Chai {n}"))
        except Conflict:
            return False
        return True

    assert sum(await asyncio.gather(*(create(n) for n in range(8)))) == 1
    assert len(await shelf.published(shelf.db)) == 1


async def test_a_refused_change_leaves_nothing(shelf: Shelf):
    """Bad details and unknown products change no row and publish nothing."""
    await shelf.products.create("NW-001", CHAI)

    with pytest.raises(Unprocessable):
        await shelf.products.change("NW-001", lambda old: replace(old, price=Money.of("0.00")))
    with pytest.raises(NotFound):
        await shelf.products.change("NW-002", lambda old: old)

    assert (await shelf.products.find("NW-001")).version == 1
    assert len(await shelf.published(shelf.db)) == 1


async def test_the_database_itself_refuses_a_free_product(shelf: Shelf):
    """A defect of ours can't sell for nothing: the constraint is the last word."""
    await shelf.products.create("NW-001", CHAI)

    with pytest.raises(Exception, match="check constraint"):
        await shelf.db.execute("UPDATE products SET price = 0")


async def test_any_catalog_pages_as_it_sorts(shelf: Shelf):
    """Random products with many equal names and prices: every sort, cut anywhere, is the whole list in order."""
    dice = Random(5)
    for n in dice.sample(range(100, 1000), 60):
        name = "".join(dice.choices("abAB ä_%", k=dice.randint(1, 3))).strip() or "x"
        details = Details(name=name, category=dice.choice("XY"), price=Money(Decimal(dice.randint(1, 5))))
        await shelf.products.create(f"S{n}", details)

    everything = await shelf.all(Sort.SKU, limit=100)
    keys: dict[str, Any] = {
        "sku": lambda product: product.sku,
        "name": lambda product: (product.details.name.lower(), product.sku),
        "price": lambda product: (product.details.price.amount, product.sku),
    }
    for sort in Sort:
        expected = sorted(everything, key=keys[sort.column], reverse=sort.descending)
        for limit in (7, 59, 60, 61):
            assert await shelf.all(sort, limit=limit) == expected


async def test_a_product_that_appears_while_paging_shifts_nothing(shelf: Shelf):
    """A page starts behind the last product seen, not at a number: nothing is shown twice or left out."""
    for n in (1, 3, 5):
        await shelf.products.create(f"S{n}", CHAI)
    first, after = await shelf.products.page(Filter(), Sort.SKU, after=None, limit=2)

    await shelf.products.create("S2", CHAI)
    rest, end = await shelf.products.page(Filter(), Sort.SKU, after=after, limit=2)

    assert [product.sku for product in first + rest] == ["S1", "S3", "S5"]
    assert end is None
