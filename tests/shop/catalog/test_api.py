"""The catalog over HTTP, on a real PostgreSQL."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from backstay.db import Database
from shop.catalog.config import Settings
from shop.catalog.main import build

CHAI = {"sku": "NW-001", "name": "Chai", "category": "Beverages", "price": {"amount": "18.00", "currency": "USD"}}
SHELF = [
    ("NW-001", "Chai", "Beverages", "18.00", True),
    ("NW-002", "Chang", "Beverages", "19.00", True),
    ("NW-003", "Aniseed Syrup", "Condiments", "10.00", False),
    ("NW-004", "älg", "Meat", "19.00", True),
    ("NW-005", "100% Cacao_Bar", "Sweets", "2.50", True),
]


@pytest.fixture
async def api(database: str, calling: Any) -> AsyncIterator[Any]:
    async with calling(build(Settings(database_url=database))) as caller:
        yield caller


@pytest.fixture
async def shelf(api: Any) -> Any:
    for sku, name, category, amount, available in SHELF:
        price = {"amount": amount, "currency": "USD"}
        body = {"sku": sku, "name": name, "category": category, "price": price, "available": available}
        assert (await api.ask("POST", "/products", body)).status == 201
    return api


async def numbers(api: Any, query: str) -> list[int]:
    return [int(item["sku"][-1]) for item in await api.all(f"/products?{query}", who=None)]


async def test_an_admin_adds_a_product_that_everybody_reads(api: Any, database: str, published: Any):
    """A created product is readable without a token at its Location, and its event carries all of it."""
    body = {**CHAI, "supplier": "Exotic Liquids", "unit": "10 boxes"}

    made = await api.ask("POST", "/products", body)
    read = await api.get("/products/NW-001", who=None)

    assert (made.status, made.headers["location"], made.headers["etag"]) == (201, "/api/v1/products/NW-001", '"1"')
    assert (read.status, read.body) == (200, made.body)
    assert {name: read.body[name] for name in body} == body
    assert (read.body["version"], read.body["available"]) == (1, True)
    async with Database("reader", dsn=database) as db:
        [(kind, payload)] = await published(db)
    assert kind == "product.created"
    assert {name: payload[name] for name in body} == body
    assert (payload["version"], payload["at"]) == (1, read.body["updated_at"])


async def test_a_sku_is_taken_once(api: Any):
    """A second product with the same sku is refused and changes nothing."""
    await api.ask("POST", "/products", CHAI)

    again = await api.ask("POST", "/products", {**CHAI, "name": "Other"})

    assert (again.status, again.slug) == (409, "product-exists")
    assert (await api.get("/products/NW-001")).body["name"] == "Chai"


@pytest.mark.parametrize(("who", "status"), [(None, 401), ("01890000-0000-7000-8000-000000000001", 403)])
async def test_only_admins_write(api: Any, who: Any, status: int):
    """Without the scope nothing is written: prices are ours."""
    asked = {"POST": "/products", "PUT": "/products/NW-001", "PATCH": "/products/NW-001"}

    for method, path in asked.items():
        assert (await api.ask(method, path, {**CHAI, "version": 1}, who=who)).status == status


async def test_every_broken_rule_is_named(api: Any, database: str, published: Any):
    """Rules that go beyond a field's shape are reported together, and nothing is saved."""
    bad = {"sku": "nw 1", "name": " ", "category": "x", "price": {"amount": "0.00", "currency": "EUR"}}

    refused = await api.ask("POST", "/products", bad)

    assert refused.status == 422
    assert refused.pointers == ["/sku", "/name", "/price/amount", "/price/currency"]
    async with Database("reader", dsn=database) as db:
        assert await published(db) == []


async def test_a_field_of_the_wrong_shape_is_named(api: Any):
    """The first field that can't be read is named by its pointer; a typo is an unknown field."""
    wrong = {
        "/price": {"price": {"amount": "1.234", "currency": "USD"}},
        "/availible": {"availible": True},
        "/name": {"name": 5},
        "/category": {"category": ""},
    }

    for pointer, change in wrong.items():
        refused = await api.ask("POST", "/products", {**CHAI, **change})
        assert (refused.status, refused.pointers) == (422, [pointer])


async def test_two_admins_cant_overwrite_each_other(shelf: Any, database: str, published: Any):
    """Of two changes to the same version one is made and one is refused; each version is published once."""
    price = {"amount": "20.00", "currency": "USD"}
    whole = {"name": "Chai", "category": "Beverages", "price": price, "version": 1}

    first = await shelf.ask("PUT", "/products/NW-001", whole)
    second = await shelf.ask("PUT", "/products/NW-001", {**whole, "name": "Tea"})

    assert (first.status, first.body["version"], first.headers["etag"]) == (200, 2, '"2"')
    assert (second.status, second.slug, second.body["version"]) == (409, "stale-version", 2)
    async with Database("reader", dsn=database) as db:
        updates = [payload for kind, payload in await published(db) if kind == "product.updated"]
    assert [(update["sku"], update["version"], update["price"]) for update in updates] == [("NW-001", 2, price)]


async def test_conditions_of_a_product(shelf: Any):
    """A change under a tag that isn't the current one is not carried out; a reader that has the product gets 304."""
    stale = await shelf.ask("PATCH", "/products/NW-003", {"available": True}, headers={"if-match": '"7"'})
    changed = await shelf.ask("PATCH", "/products/NW-003", {"available": True}, headers={"if-match": '"1"'})
    again = await shelf.ask("PATCH", "/products/NW-003", {"available": False}, headers={"if-match": '"1"'})
    read = await shelf.get("/products/NW-003", who=None, headers={"if-none-match": '"1", W/"2"'})

    assert (stale.status, stale.slug, stale.headers["etag"]) == (412, "precondition-failed", '"1"')
    assert (changed.status, changed.headers["etag"], again.status) == (200, '"2"', 412)
    assert (read.status, read.body, read.headers["etag"]) == (304, None, '"2"')


async def test_a_part_can_be_changed_alone(shelf: Any):
    """What a PATCH leaves out stays; null takes an optional text away; nothing changed is no new version."""
    await shelf.ask("PATCH", "/products/NW-003", {"supplier": "Exotic Liquids"})
    changed = await shelf.ask("PATCH", "/products/NW-003", {"available": True, "supplier": None, "version": 2})
    same = await shelf.ask("PATCH", "/products/NW-003", {"available": True})

    assert (changed.body["version"], changed.body["available"], changed.body["supplier"]) == (3, True, None)
    assert changed.body["price"] == {"amount": "10.00", "currency": "USD"}
    assert same.body == changed.body


async def test_what_isnt_there_isnt_found(api: Any):
    """Reading and changing an unknown product is 404."""
    assert (await api.get("/products/NOPE", who=None)).status == 404
    assert (await api.ask("PATCH", "/products/NOPE", {"available": True})).status == 404


FOUND = {
    "category=Beverages": [1, 2],
    "available=false": [3],
    "min_price=10&max_price=18.00": [1, 3],
    "q=cha": [1, 2],
    "q=BEVER": [1, 2],
    "q=100%25": [5],
    "q=o_B": [5],
    "q=_": [5],
    "q=%C3%84LG": [4],
    "q=%20": [1, 2, 3, 4, 5],
    "q=x&category=Meat": [],
}


async def test_a_list_shows_what_was_asked_for(shelf: Any):
    """Filters and words combine; nothing that is searched for is a wildcard."""
    assert {query: await numbers(shelf, query) for query in FOUND} == FOUND


ORDERS = {
    "sku": [1, 2, 3, 4, 5],
    "-sku": [5, 4, 3, 2, 1],
    "name": [5, 3, 1, 2, 4],
    "-name": [4, 2, 1, 3, 5],
    "price": [5, 3, 1, 2, 4],
    "-price": [4, 2, 1, 3, 5],
}


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
async def test_pages_show_every_product_once_in_order(shelf: Any, limit: int):
    """However a list is cut into pages, together they are the list; equal prices follow by sku."""
    assert {sort: await numbers(shelf, f"sort={sort}&limit={limit}") for sort in ORDERS} == ORDERS


BAD = {
    "limit=0": "/query/limit",
    "limit=101": "/query/limit",
    "sort=colour": "/query/sort",
    "min_price=abc": "/query/min_price",
    "min_price=NaN": "/query/min_price",
    "max_price=1e-5000": "/query/max_price",
    "cursor=abc": "/query/cursor",
    "q=%00": "/query/q",
}


async def test_a_bad_question_is_answered_precisely(api: Any):
    """422 with the query parameter that is wrong."""
    refused = {query: await api.get(f"/products?{query}", who=None) for query in BAD}

    assert {query: reply.status for query, reply in refused.items()} == dict.fromkeys(BAD, 422)
    assert {query: reply.pointers for query, reply in refused.items()} == {query: [at] for query, at in BAD.items()}


async def test_a_cursor_belongs_to_its_sort(shelf: Any):
    """A cursor of one order doesn't page through another."""
    cursor = (await shelf.get("/products?limit=1&sort=name")).body["next"]

    assert (await shelf.get(f"/products?limit=1&sort=price&cursor={cursor}")).status == 422
