"""The middleware that answers a repeated key, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tests.backstay.asgi.conftest import calling

from backstay.asgi import Idempotency, ProblemDetails
from backstay.db import Database

ORDER = {"sku": "tea", "quantity": 1}
KEY = {"idempotency-key": "k-1"}


class Shop:
    """Takes orders: each gets a number of its own."""

    def __init__(self) -> None:
        self.orders = 0
        self.status = 201
        self.size = 0
        self.error: Exception | None = None
        self.arrived, self.go = asyncio.Event(), asyncio.Event()
        self.go.set()
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        self.orders += 1
        self.arrived.set()
        await self.go.wait()
        if self.error is not None:
            raise self.error
        headers = [
            (b"Content-Type", b"text/plain"),
            (b"vary", b"a"),
            (b"vary", b"b"),
            (b"set-cookie", b"c=%d" % self.orders),
        ]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b"order %d" % self.orders, "more_body": True})
        await send({"type": "http.response.body", "body": b"!" * self.size})


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def http(database: str, shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    db = Database("things", dsn=database)
    app = ProblemDetails(Idempotency(shop, db=db, max_body=1000))
    async with db, calling(app) as http:
        yield http


async def test_a_repeat_gets_the_first_answer(http: httpx.AsyncClient, shop: Shop) -> None:
    """Status, headers and body are those of the first answer, however the repeat spells its body."""
    first = await http.post("/orders", json=ORDER, headers=KEY)
    repeat = await http.post("/orders", content=b'{ "quantity": 1, "sku": "tea" }', headers=KEY)

    assert (first.status_code, first.text, shop.orders) == (201, "order 1", 1)
    assert (repeat.status_code, repeat.content, repeat.headers["vary"]) == (201, first.content, "a, b")
    assert (first.headers["set-cookie"], "set-cookie" in repeat.headers) == ("c=1", False)


async def test_the_application_gets_the_body(http: httpx.AsyncClient, shop: Shop) -> None:
    """What was read for the key is read again by the application."""
    await http.post("/orders", content=b"no json", headers=KEY)

    assert shop.bodies == [b"no json"]


async def test_keys_of_other_places_and_other_bodies(http: httpx.AsyncClient, shop: Shop) -> None:
    """A key counts for one path; with another body it is refused; without one, and for reads, nothing is stored."""
    await http.post("/orders", json=ORDER, headers=KEY)

    assert (await http.post("/other", json=ORDER, headers=KEY)).text == "order 2"
    assert (await http.post("/orders", json={"sku": "tea"}, headers=KEY)).status_code == 422
    assert [(await http.post("/orders", json=ORDER)).text for _ in range(2)] == ["order 3", "order 4"]
    assert [(await http.get("/orders", headers=KEY)).text for _ in range(2)] == ["order 5", "order 6"]


async def test_a_repeat_while_the_first_is_answered(http: httpx.AsyncClient, shop: Shop) -> None:
    """It is told to wait, and does nothing."""
    shop.go.clear()
    first = asyncio.create_task(http.post("/orders", json=ORDER, headers=KEY))
    await shop.arrived.wait()
    repeat = await http.post("/orders", json=ORDER, headers=KEY)
    shop.go.set()

    assert (repeat.status_code, repeat.headers["retry-after"]) == (409, "1")
    assert ((await first).text, shop.orders) == ("order 1", 1)


@pytest.mark.parametrize("status", [400, 401, 403, 413, 422, 429, 500, 503])
async def test_answers_that_may_become_better(http: httpx.AsyncClient, shop: Shop, status: int) -> None:
    """They aren't stored: a repeat is done anew, at once."""
    shop.status = status
    assert (await http.post("/orders", json=ORDER, headers=KEY)).status_code == status
    shop.status = 201

    assert (await http.post("/orders", json=ORDER, headers=KEY)).text == "order 2"


async def test_an_application_that_fails(http: httpx.AsyncClient, shop: Shop) -> None:
    """Its key is given up."""
    shop.error = ConnectionError("lost")
    assert (await http.post("/orders", json=ORDER, headers=KEY)).status_code == 503
    shop.error = None

    assert (await http.post("/orders", json=ORDER, headers=KEY)).text == "order 2"


async def test_long_answers_and_bodies(http: httpx.AsyncClient, shop: Shop) -> None:
    """An answer that is too long to be stored goes out whole, a body that is too long is refused."""
    shop.size = 2000
    assert (await http.post("/orders", json=ORDER, headers=KEY)).text == "order 1" + "!" * 2000
    assert (await http.post("/orders", content=b"x" * 1001, headers=KEY)).status_code == 413
    assert shop.orders == 1


async def test_a_key_may_be_required(database: str, shop: Shop) -> None:
    """Then a request without one, or with one that is none, is refused."""
    db = Database("things", dsn=database)
    app = Idempotency(shop, db=db, required=True)
    async with db, calling(app) as http:
        assert (await http.post("/orders")).json()["type"].endswith(":idempotency-key-missing")
        reply = await http.post("/orders", headers={"idempotency-key": "a b"})
        assert reply.json()["type"].endswith(":idempotency-key-malformed")
    assert shop.orders == 0
