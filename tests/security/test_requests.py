"""Requests made to do harm: smuggled, oversized, endless, cut short, or with more in them than was asked for."""

import asyncio
import json
import time
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from backstay.dev.web import HttpError

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

BODY = {"lines": [{"sku": "NW-001", "quantity": 1}], "payment_method": "pm_card_ok"}
INNER = "GET /payments/{order} HTTP/1.1\r\nHost: payments\r\n\r\n"


def request(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, "Host: shop", *headers, "", ""]).encode() + body


@pytest.mark.parametrize(
    "framing",
    [
        ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 4"),
        ("Content-Length: 4", "Content-Length: 90"),
        ("Content-Length: 4, 90",),
        ("Content-Length: +4",),
        ("Content-Length: 0x4",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding:\tchunked", "Content-Length: 4"),
        (" Transfer-Encoding: chunked",),
    ],
)
async def test_two_readings_of_one_request_are_refused(world, tools, framing: tuple[str, ...]) -> None:
    """Whatever a second parser could take for a second request: one answer, 400 or 501, and the connection ends."""
    inner = request("GET /actuator/circuitbreakers HTTP/1.1")
    answer = await tools.raw(
        world.running.gateway,
        request("POST /api/v1/auth/login HTTP/1.1", *framing, body=b"0\r\n\r\n" + inner),
        within=5,
    )

    assert answer.count(b"HTTP/1.1 ") == 1, answer
    assert answer.split()[1] in (b"400", b"411", b"501"), answer


@pytest.mark.parametrize(
    "target",
    [
        "/api/v1/orders/../../payments",
        "/api/v1/orders/..%2f..%2fpayments",
        "/api/v1/orders/%2e%2e/%2e%2e/payments",
        "/api/v1/products/../../actuator/circuitbreakers",
        "/api/v1/products/%2e%2e/%2e%2e/%2e%2e/metrics",
        "/api/v1//../payments",
        "//payments/payments",
        "/api/v1/products;/../../metrics",
        "http://payments/payments",
        "/metrics",
        "/info",
        "/openapi.json",
        "/actuator/circuitbreakers",
        "/oauth2/token",
        "/api/v1/payments",
    ],
)
async def test_no_path_leads_to_what_is_internal(world, admin, tools, target: str) -> None:
    """Not by dots, encodings, slashes or an address in the request line; not even with an admin's token."""
    answer = await tools.raw(
        world.running.gateway,
        request(f"GET {target} HTTP/1.1", f"Authorization: Bearer {admin.token}", "Connection: close"),
        within=5,
    )

    assert answer.split()[1] in (b"400", b"404"), answer[:200]
    assert b"# TYPE" not in answer


@pytest.mark.parametrize(
    "name",
    [
        "X-User-Id",
        "X-User-Roles",
        "X_User_Id",
        "X-Auth-Subject",
        "X-Forwarded-User",
        "X-Client-Id",
        "X-Scope",
        "X-Roles",
    ],
)
async def test_headers_of_identity_change_nothing(world, customer, name: str, tools) -> None:
    """A customer stays the customer of his token, whatever he says he is."""
    token = f"Authorization: Bearer {customer.shopper.token}"
    for value in ("admin", str(uuid4()), "admin,customer"):
        answer = await tools.raw(
            world.running.gateway,
            request("GET /api/v1/analytics/revenue HTTP/1.1", token, f"{name}: {value}", "Connection: close"),
            within=5,
        )
        assert answer.split()[1] == b"403"


async def test_a_host_and_forwarding_headers_choose_nothing(world, tools) -> None:
    """Neither the host nor X-Forwarded-*, X-Original-URL or the like picks another service or path."""
    for line in ("X-Original-URL: /payments", "X-Rewrite-URL: /metrics", "X-Forwarded-Prefix: /payments"):
        answer = await tools.raw(
            world.running.gateway,
            request("GET /api/v1/products/NW-001 HTTP/1.1", line, "X-Forwarded-Host: payments", "Connection: close"),
            within=5,
        )
        assert answer.split()[1] == b"200"
        assert b'"sku":"NW-001"' in answer


@pytest.mark.parametrize(
    "extra",
    [
        {"id": str(uuid4())},
        {"customer_id": str(uuid4())},
        {"status": "cancelled"},
        {"total": {"amount": "0.01", "currency": "USD"}},
        {"payment_id": str(uuid4())},
        {"version": 99},
        {"created_at": "2001-01-01T00:00:00Z"},
    ],
)
async def test_an_order_takes_nothing_that_is_ours(customer, extra: dict[str, object]) -> None:
    """A body that names what only we decide is refused, with the field."""
    reply = await customer.once({**BODY, **extra}, key=uuid4().hex)

    assert reply.status == 422
    assert [error["pointer"] for error in reply.body["errors"]] == [f"/{next(iter(extra))}"]


async def test_an_account_takes_no_roles(web) -> None:
    """A registration that names roles, an id or a scope is refused."""
    email = f"{uuid4().hex}@customers.example"
    wish = {"email": email, "password": "a long enough passphrase", "name": "Eve"}
    for extra in ({"roles": ["admin"]}, {"role": "admin"}, {"id": str(uuid4())}, {"scope": "catalog:write"}):
        reply = await web.call("POST", "/api/v1/auth/register", {**wish, **extra})
        assert reply.status == 422
        assert [error["pointer"] for error in reply.body["errors"]] == [f"/{next(iter(extra))}"]


async def test_login_gives_no_more_than_the_account_has(web, customer, tools) -> None:
    """A scope or audience that is asked for at the login is refused by name."""
    wish = {"email": customer.shopper.email, "password": tools.password, "scope": "catalog:write", "audience": "x"}
    reply = await web.call("POST", "/api/v1/auth/login", wish)

    assert reply.status == 422
    assert [error["pointer"] for error in reply.body["errors"]] == ["/scope", "/audience"]


@pytest.mark.parametrize("path", ["/api/v1/orders", "/api/v1/auth/login", "/api/v1/auth/register"])
async def test_an_oversized_body_is_refused_by_its_announcement(world, customer, path: str, tools) -> None:
    """413 before a byte of it has been sent."""
    token = f"Authorization: Bearer {customer.shopper.token}"
    announced = request(
        f"POST {path} HTTP/1.1", token, "Content-Type: application/json", "Content-Length: 999999999", "Expect: x"
    ).replace(b"Expect: x\r\n", b"")
    started = time.monotonic()
    answer = await tools.raw(world.running.gateway, announced, within=10)

    assert answer.split()[1] == b"413"
    assert time.monotonic() - started < 8


async def test_an_oversized_chunked_body_is_refused_on_its_way(world, customer, tools) -> None:
    """Without an announcement: as soon as it is too much."""
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    data = request(
        "POST /api/v1/orders HTTP/1.1",
        f"Authorization: Bearer {customer.shopper.token}",
        f"Idempotency-Key: {uuid4().hex}",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        body=chunk * 64,
    )
    answer = await tools.raw(world.running.gateway, data, within=10)

    assert answer == b"" or answer.split()[1] == b"413"


async def test_a_truncated_body_orders_nothing(world, customer, tools) -> None:
    """The connection ends before the body does: no order, and the key is free."""
    key, body = uuid4().hex, json.dumps(BODY).encode()
    head = request(
        "POST /api/v1/orders HTTP/1.1",
        f"Authorization: Bearer {customer.shopper.token}",
        "Content-Type: application/json",
        f"Idempotency-Key: {key}",
        f"Content-Length: {len(body) + 10}",
        body=body,
    )
    await tools.raw(world.running.gateway, head, within=0.5)
    assert await customer.shopper.every("/api/v1/orders") == []
    (await customer.once(BODY, key=key)).expect(201, 202)


async def test_slow_senders_leave_the_others_alone(world, customer) -> None:
    """Two hundred half requests, in heads and in bodies: orders are taken as before."""
    address = urlsplit(world.running.gateway)
    halves = (
        b"GET /api/v1/products HTTP/1.1\r\nHost: s",
        b"POST /api/v1/auth/login HTTP/1.1\r\nHost: s\r\nContent-Length: 9\r\n\r\n{",
    )
    slow = [await asyncio.open_connection(address.hostname, address.port) for _ in range(200)]
    try:
        for number, (_, writer) in enumerate(slow):
            writer.write(halves[number % 2])
        started = time.monotonic()
        (await customer.order()).expect(201, 202)
        assert time.monotonic() - started < 4
    finally:
        for _, writer in slow:
            writer.transport.abort()


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"lines":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"a":' * 20_000,
        b'{"lines":[{"sku":"NW-001","quantity":1e400}],"payment_method":"pm_card_ok"}',
        b'{"lines":[{"sku":"NW-001","quantity":9223372036854775808}],"payment_method":"pm_card_ok"}',
        b'{"lines":[{"sku":"NW-001\\u0000","quantity":1}],"payment_method":"pm_card_ok"}',
        b'{"lines":[{"sku":"\\ud800","quantity":1}],"payment_method":"pm_card_ok"}',
        b'{"lines":[{"sku":"' + b"' OR 1=1 --" + b'","quantity":1}],"payment_method":"pm_card_ok"}',
    ],
)
async def test_bodies_that_break_parsers_are_4xx(world, customer, tools, body: bytes) -> None:
    """Depth, huge numbers, NUL, lone surrogates, SQL: refused in words, and nothing of ours in them."""
    data = request(
        "POST /api/v1/orders HTTP/1.1",
        f"Authorization: Bearer {customer.shopper.token}",
        "Content-Type: application/json",
        f"Idempotency-Key: {uuid4().hex}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        body=body,
    )
    answer = await tools.raw(world.running.gateway, data, within=10)

    assert answer.split()[1] in (b"400", b"413", b"422"), answer[:300]
    for ours in (b"Traceback", b"asyncpg", b"SELECT", b".py"):
        assert ours not in answer


@pytest.mark.parametrize("path", ["/api/v1/products?q=%00", "/api/v1/products?q=%ff%fe", "/api/v1/products/%00"])
async def test_bytes_that_databases_refuse_are_4xx(web, path: str) -> None:
    """A NUL or a broken encoding in a query is the client's mistake, not an error of ours."""
    reply = await web.call("GET", path)

    assert reply.status in (200, 400, 404, 422)


async def test_a_flood_of_headers_is_refused(world, tools) -> None:
    """Too many, or one too long."""
    many = [f"X-{number}: y" for number in range(2000)]
    for headers in (many, ["X-Long: " + "y" * 200_000]):
        try:
            answer = await tools.raw(
                world.running.gateway, request("GET /api/v1/products HTTP/1.1", *headers), within=5
            )
        except (HttpError, ConnectionError):
            continue
        assert answer == b"" or answer.split()[1] in (b"400", b"431")
