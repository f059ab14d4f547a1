"""Inventory over HTTP, on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import pytest

from backstay.service import encode_cursor
from shop.inventory.config import Settings
from shop.inventory.main import build
from shop.inventory.model import ON_HAND_LIMIT


@pytest.fixture
async def api(database: str, calling: Any) -> AsyncIterator[Any]:
    async with calling(build(Settings(database_url=database))) as caller:
        yield caller


async def put(api: Any, sku: str, **count: int) -> Any:
    return await api.ask("PUT", f"/stock/{sku}", count)


async def restock(api: Any, sku: str, quantity: int, key: str | None) -> Any:
    headers = {"idempotency-key": key} if key else {}
    return await api.ask("POST", f"/stock/{sku}/restock", {"quantity": quantity}, headers=headers)


async def test_a_count_is_read_back(api: Any):
    """What an admin sets is what is there, with its reorder level, at version 1."""
    counted = await put(api, "NW-001", on_hand=39, reorder_level=10)

    assert counted.status == 200
    assert (await api.get("/stock/NW-001")).body == counted.body
    assert {name: counted.body[name] for name in ("sku", "on_hand", "reserved", "available")} == {
        "sku": "NW-001",
        "on_hand": 39,
        "reserved": 0,
        "available": 39,
    }
    assert (counted.body["reorder_level"], counted.body["version"]) == (10, 1)


async def test_conditions_of_stock(api: Any):
    """Stock is set once under `If-None-Match: *`, and only from the state that was read under `If-Match`."""
    path, body = "/stock/NW-001", {"on_hand": 39}
    conditions = ({"if-match": "*"}, {"if-none-match": "*"}, {"if-none-match": "*"}, {"if-match": '"1"'})
    statuses = [(await api.ask("PUT", path, body, headers=condition)).status for condition in conditions]
    stale = await api.ask("PUT", path, {"on_hand": 40}, headers={"if-match": '"0"'})
    read = await api.get(path)

    assert statuses == [412, 200, 412, 200]
    assert (stale.status, read.body["on_hand"]) == (412, 39)
    assert read.headers["etag"] == f'"{read.body["version"]}"'
    assert (await api.get(path, headers={"if-none-match": read.headers["etag"]})).status == 304


async def test_a_delivery_counts_once_per_key(api: Any):
    """Repeats of a restock, also at the same moment, get the first answer byte for byte and add nothing."""
    await put(api, "NW-001", on_hand=1)
    key = str(uuid4())

    first = await restock(api, "NW-001", 5, key)
    again = await asyncio.gather(*(restock(api, "NW-001", 5, key) for _ in range(4)))

    assert (first.status, first.body["on_hand"]) == (200, 6)
    assert all(reply.body == first.body for reply in again)
    assert (await restock(api, "NW-001", 6, key)).status == 422
    assert (await restock(api, "NW-001", 5, None)).status == 400
    assert (await restock(api, "NW-001", 5, str(uuid4()))).body["on_hand"] == 11


async def test_a_key_belongs_to_its_product(api: Any):
    """The same key for another product is another request, and refused."""
    await put(api, "NW-001", on_hand=1)
    await put(api, "NW-002", on_hand=1)
    key = str(uuid4())

    first = await restock(api, "NW-001", 1, key)
    other = await restock(api, "NW-002", 1, key)

    assert (first.status, other.status) == (200, 422)


async def test_the_ledger_shows_every_change(api: Any):
    """Newest first, page by page, and the lines add up to the stock."""
    await put(api, "NW-001", on_hand=10)
    await restock(api, "NW-001", 5, "a")
    await put(api, "NW-001", on_hand=12)

    lines = await api.all("/stock/NW-001/ledger?limit=1")

    assert [(line["version"], line["kind"], line["on_hand"]) for line in lines] == [
        (3, "set", -3),
        (2, "restock", 5),
        (1, "set", 10),
    ]
    assert sum(line["on_hand"] for line in lines) == (await api.get("/stock/NW-001")).body["on_hand"]


async def test_pages_show_every_product_once(api: Any):
    """However it is cut, the list is all products by sku."""
    for sku in ("C", "A", "B"):
        await put(api, sku, on_hand=1)

    assert [item["sku"] for item in await api.all("/stock?limit=1")] == ["A", "B", "C"]


@pytest.mark.parametrize(("who", "status"), [(None, 401), ("01890000-0000-7000-8000-000000000001", 403)])
async def test_stock_is_the_admins(api: Any, who: Any, status: int):
    """Customers neither see nor set it."""
    asked = [
        ("GET", "/stock", None),
        ("GET", "/stock/A", None),
        ("GET", "/stock/A/ledger", None),
        ("PUT", "/stock/A", {"on_hand": 1}),
        ("POST", "/stock/A/restock", {"quantity": 1}),
    ]

    assert [(await api.ask(*request, who=who, headers={"idempotency-key": "k"})).status for request in asked] == [
        status
    ] * len(asked)


async def test_bad_input_is_named(api: Any):
    """422 with the field; 404 for a product without stock; nothing saved."""
    for body in ({"on_hand": -1}, {"on_hand": ON_HAND_LIMIT + 1}, {"on_hand": "many"}):
        refused = await api.ask("PUT", "/stock/A", body)
        assert (refused.status, refused.pointers) == (422, ["/on_hand"])
    assert (await api.ask("PUT", "/stock/A", {"on_hand": 1, "reserved": 5})).pointers == ["/reserved"]
    assert (await restock(api, "A", 1, "k")).status == 404
    assert (await api.get("/stock/A")).status == 404
    assert (await api.get("/stock/A/ledger")).status == 404
    assert (await put(api, "not%20a%20sku", on_hand=1)).status == 404


async def test_a_forged_cursor_is_refused(api: Any):
    """A cursor that we never made is the client's mistake, whatever is in it: 422, never an error of ours."""
    await put(api, "A", on_hand=1)
    forged = {"/stock": ["\0"], "/stock/A/ledger": [10**30]}

    for path, position in forged.items():
        refused = await api.get(f"{path}?cursor={encode_cursor(*position)}")
        assert (refused.status, refused.pointers) == (422, ["/query/cursor"])


async def test_no_delivery_passes_the_limit(api: Any):
    """More than a product may have is refused, naming the quantity, and can be asked again with the same key."""
    await put(api, "A", on_hand=ON_HAND_LIMIT)

    refused = await restock(api, "A", 1, "k")
    await put(api, "A", on_hand=0)

    assert (refused.status, refused.pointers) == (422, ["/quantity"])
    assert (await restock(api, "A", 1, "k")).status == 200
