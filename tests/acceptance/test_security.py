"""Nobody gets in by pretending, and nothing a client sends sets a price or a state."""

import asyncio
import base64
import json
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from backstay.auth.signing import SigningKey
from backstay.dev.web import HttpError, Reply
from shop.auth.providers import KeySafe

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

BODY = {"lines": [{"sku": "NW-001", "quantity": 1}], "payment_method": "pm_card_ok"}


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def claims(token: str) -> dict[str, object]:
    middle = token.split(".")[1]
    return dict(json.loads(base64.urlsafe_b64decode(middle + "=" * (-len(middle) % 4))))


def header(token: str) -> dict[str, object]:
    first = token.split(".")[0]
    return dict(json.loads(base64.urlsafe_b64decode(first + "=" * (-len(first) % 4))))


@pytest.mark.parametrize(
    "change",
    [
        {"sub": str(uuid4())},
        {"roles": ["admin"]},
        {"exp": 4_102_444_800},
        {"aud": "another-shop"},
    ],
)
async def test_a_changed_token_is_refused(web, customer, change: dict[str, object]) -> None:
    """Whatever is changed, the signature doesn't fit any more."""
    first, _, signature = customer.shopper.token.split(".")
    forged = f"{first}.{segment({**claims(customer.shopper.token), **change})}.{signature}"

    assert (await web.call("GET", "/api/v1/orders", token=forged)).status == 401


async def test_alg_none_is_refused(web, world, customer) -> None:
    """A token without a signature is none, at the gateway and at each service."""
    payload = segment(claims(customer.shopper.token))
    for name in ("none", "None", "HS256"):
        forged = f"{segment({**header(customer.shopper.token), 'alg': name})}.{payload}."
        assert (await web.call("GET", "/api/v1/orders", token=forged)).status == 401
        async with world.instance("orders") as orders:
            assert (await orders.call("GET", "/api/v1/orders", token=forged)).status == 401


@pytest.mark.parametrize("change", [{"aud": "another-shop"}, {"iss": "https://elsewhere"}, {"exp": 1_000_000_000}])
async def test_a_token_for_another_or_of_yesterday_is_refused(web, world, customer, change) -> None:
    """Signed by the true key, but not for us, not by us, or over."""
    assert (await web.call("GET", "/api/v1/orders", token=customer.shopper.token)).status == 200
    token = await _signed(world, {**claims(customer.shopper.token), **change})

    assert (await web.call("GET", "/api/v1/orders", token=token)).status == 401
    async with world.instance("orders") as orders:
        assert (await orders.call("GET", "/api/v1/orders", token=token)).status == 401


async def test_no_token_is_401_and_too_little_is_403(web, customer) -> None:
    """Who isn't known is asked; who may not is told."""
    assert (await web.call("GET", "/api/v1/orders")).status == 401
    token = customer.shopper.token
    assert (await web.call("GET", "/api/v1/analytics/revenue", token=token)).status == 403
    assert (await web.call("POST", "/api/v1/products", {}, token=token)).status == 403
    assert (await web.call("PUT", "/api/v1/stock/NW-001", {"on_hand": 0}, token=token)).status == 403


async def test_headers_give_no_identity(world, customer) -> None:
    """Whatever a client says about who it is counts for nothing, at the gateway and behind it."""
    pretended = ["X-User-Id: admin", "X-User-Roles: admin", "X-Forwarded-User: admin", "X-Authenticated-User: admin"]

    assert b" 401 " in await _raw(world.running.gateway, "GET /api/v1/orders HTTP/1.1", *pretended)
    async with world.instance("orders") as orders:
        assert b" 401 " in await _raw(orders.base, "GET /api/v1/orders HTTP/1.1", *pretended)


async def test_payments_has_no_public_door(web, admin) -> None:
    """No path through the gateway reaches payments, not even an admin's."""
    for path in ("/payments", "/api/v1/payments", f"/payments/{uuid4()}", f"/api/v1/payments/{uuid4()}/refund"):
        assert (await web.call("POST", path, {}, token=admin.token)).status == 404


async def test_internal_tokens_are_not_for_sale(web, world, customer) -> None:
    """The token endpoint for services isn't public, and a customer's token charges nobody."""
    assert (await web.call("POST", "/oauth2/token", {})).status in (401, 404)
    async with world.instance("payments") as payments:
        body = {
            "order_id": str(uuid4()),
            "customer_id": str(uuid4()),
            "amount": {"amount": "1.00", "currency": "USD"},
            "method": "pm_card_ok",
        }
        refused = await payments.call("POST", "/payments", body, token=customer.shopper.token, key=uuid4().hex)
    assert refused.status == 401


async def test_other_peoples_orders_are_not_there(new_customer) -> None:
    """Reading, following or cancelling somebody else's order is 404, as for one that doesn't exist."""
    owner, stranger = await new_customer(), await new_customer()
    order = await owner.buy()

    for method, path in (("GET", ""), ("GET", "/timeline"), ("POST", "/cancel")):
        assert (await stranger.shopper.ask(method, f"/api/v1/orders/{order}{path}")).status == 404
        assert (await stranger.shopper.ask(method, f"/api/v1/orders/{uuid4()}{path}")).status == 404
    assert await stranger.shopper.every("/api/v1/orders") == []
    assert await owner.status(order) == "confirmed"


async def test_a_price_in_the_body_is_refused(customer) -> None:
    """Prices, totals and states are ours: a body that names one is refused by name, and nothing is ordered."""
    for extra in ({"total": {"amount": "0.01", "currency": "USD"}}, {"status": "cancelled"}):
        reply = await customer.once({**BODY, **extra}, key=uuid4().hex)
        assert reply.status == 422
        assert [error["pointer"] for error in reply.body["errors"]] == [f"/{next(iter(extra))}"]
    line = {"sku": "NW-001", "quantity": 1, "unit_price": {"amount": "0.01", "currency": "USD"}}
    reply = await customer.once({**BODY, "lines": [line]}, key=uuid4().hex)
    assert reply.status == 422
    assert [error["pointer"] for error in reply.body["errors"]] == ["/lines/0/unit_price"]


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"lines": []}, "/lines"),
        ({"lines": [{"sku": "NW-001", "quantity": 0}]}, "/lines/0/quantity"),
        ({"lines": [{"sku": "NW-001", "quantity": 10_001}]}, "/lines/0/quantity"),
        ({"lines": [{"sku": "NW-001", "quantity": "two"}]}, "/lines/0/quantity"),
        ({"lines": [{"sku": "NW-001", "quantity": 1}] * 2}, "/lines/1"),
        ({"lines": [{"sku": f"X-{n}", "quantity": 1} for n in range(101)]}, "/lines"),
        ({"payment_method": "cash"}, "/payment_method"),
        ({"lines": None}, "/lines"),
    ],
)
async def test_a_wrong_field_is_named(customer, change: dict[str, object], pointer: str) -> None:
    """422 as problem+json, with a pointer to the field; nothing is ordered."""
    reply = (await customer.once({**BODY, **change}, key=uuid4().hex)).expect(422)

    assert reply.headers["content-type"].startswith("application/problem+json")
    assert reply.body["traceId"]
    assert any(error["pointer"].startswith(pointer) for error in reply.body["errors"])
    assert await customer.shopper.every("/api/v1/orders") == []


async def test_malformed_json_is_400(world, customer) -> None:
    """What can't be read at all is said to be so."""
    for body in (b"{", b"\xff\xfe", b"[1, 2", b'{"lines": NaN}'):
        answer = await _raw(
            world.running.gateway,
            "POST /api/v1/orders HTTP/1.1",
            f"Authorization: Bearer {customer.shopper.token}",
            f"Idempotency-Key: {uuid4().hex}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            body=body,
        )
        assert b" 400 " in answer.splitlines()[0]
        assert b"application/problem+json" in answer


async def test_a_huge_body_is_413(customer) -> None:
    """More than the limit is refused, and the connection of others isn't harmed."""
    try:
        reply = await customer.once({**BODY, "note": "x" * 20_000_000}, key=uuid4().hex, timeout=60)
        assert reply.status == 413
    except HttpError:
        pass  # cut off while still sending: refused all the same
    assert await customer.shopper.every("/api/v1/orders") == []


async def test_a_slow_body_holds_nobody_up(world, customer) -> None:
    """Whoever sends a byte a second is sent away; meanwhile others are served."""
    address = urlsplit(world.running.gateway)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = f"Host: x\r\nAuthorization: Bearer {customer.shopper.token}\r\nContent-Type: application/json\r\n"
    head += f"Idempotency-Key: {uuid4().hex}\r\n"  # without it the answer would not wait for the body
    writer.write(f"POST /api/v1/orders HTTP/1.1\r\n{head}Content-Length: 1000\r\n\r\n{{".encode())
    await writer.drain()
    slow = asyncio.create_task(reader.read(65536))
    (await customer.order()).expect(201, 202)
    waits = not slow.done()

    answer = await asyncio.wait_for(slow, 60)
    writer.close()
    assert waits
    assert answer == b"" or b" 408 " in answer or b" 400 " in answer or b" 504 " in answer


async def test_too_many_requests_are_429(new_customer) -> None:
    """Each user has a budget; the answer says when to come again, and nobody else pays for it."""
    greedy, other = await new_customer(), await new_customer()

    async def ask() -> int:
        return int((await greedy.web.call("GET", "/api/v1/orders", token=greedy.shopper.token)).status)

    for _ in range(40):
        if 429 in await asyncio.gather(*(ask() for _ in range(50))):
            break
    refused = await greedy.web.call("GET", "/api/v1/orders", token=greedy.shopper.token)
    if refused.status == 429:
        assert int(refused.headers["retry-after"]) >= 0
        assert any(name.startswith("x-ratelimit") for name in refused.headers)
    assert (await other.web.call("GET", "/api/v1/orders", token=other.shopper.token)).status == 200


async def test_sessions_end(web, new_customer) -> None:
    """A lost refresh is given again until its successor is used, reuse ends the session, logout reaches the gateway."""
    customer = await new_customer()
    credentials = {"email": customer.shopper.email, "password": "correct horse battery staple"}
    pair = (await web.call("POST", "/api/v1/auth/login", credentials)).expect(200).body

    async def refresh(token: str) -> Reply:
        return await web.call("POST", "/api/v1/auth/refresh", {"refresh_token": token})

    fresh = (await refresh(pair["refresh_token"])).expect(200).body["refresh_token"]
    again = (await refresh(pair["refresh_token"])).expect(200).body["refresh_token"]
    newest = (await refresh(fresh)).expect(200).body["refresh_token"]
    assert fresh == again
    for token in (pair["refresh_token"], newest):
        assert (await refresh(token)).status == 401

    (await web.call("POST", "/api/v1/auth/logout", token=customer.shopper.token)).expect(200, 204)
    async with asyncio.timeout(30):
        while (await web.call("GET", "/api/v1/orders", token=customer.shopper.token)).status != 401:
            await asyncio.sleep(0.05)


async def test_wrong_passwords_are_slowed_down_and_nobody_is_told_who_exists(web, new_customer) -> None:
    """A wrong password and an unknown address look alike; many failures have to wait."""
    known = (await new_customer()).shopper.email
    answers = {}
    for email in (known, f"{uuid4().hex}@customers.example"):
        reply = await web.call("POST", "/api/v1/auth/login", {"email": email, "password": "wrong password here"})
        answers[email] = (reply.status, reply.body.get("type"), reply.body.get("detail"))
    assert len(set(answers.values())) == 1

    statuses = [
        (await web.call("POST", "/api/v1/auth/login", {"email": known, "password": "wrong again"})).status
        for _ in range(12)
    ]
    assert 429 in statuses


async def _signed(world, payload: dict[str, object]) -> str:
    """A token by auth's own key, which a test may read: it holds the machine."""
    safe = KeySafe(world.home.secret("signing-keys"))
    async with world.database("auth") as book:
        row = await book.fetchrow("SELECT kid, sealed FROM signing_keys WHERE state = 'current'")
    return SigningKey.from_pem(safe.open(row["kid"], row["sealed"])).sign(payload)


async def _raw(base: str, request: str, *headers: str, body: bytes = b"") -> bytes:
    """Bytes as they are, past any client's good manners."""
    address = urlsplit(base)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    lines = [request, f"Host: {address.netloc}", *headers, "Connection: close", "", ""]
    writer.write("\r\n".join(lines).encode() + body)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(65536), 20)
    writer.close()
    return answer
