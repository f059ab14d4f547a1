"""Bad input gets a precise problem, and nothing else happens."""

import asyncio
from typing import Any

import msgspec
import pytest

from backstay.http.phases import Timeouts
from backstay.testing import eventually
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer

THING = "0190a0a0-0000-7000-8000-000000000000"

GOOD: dict[str, Any] = {"lines": [{"sku": "tea", "quantity": 2}]}

HEAD = b"POST /things HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\ncontent-type: application/json\r\n"


@pytest.fixture
def head_timeout() -> float:
    """Seconds for a head."""
    return 10.0


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch, head_timeout: float) -> None:
    """The raw client here keeps its side open, so the service would wait for the whole time."""
    monkeypatch.setattr("backstay.service.server.TIMEOUTS", Timeouts(linger=0.05, head=head_timeout))


def lines(**changed: Any) -> dict[str, Any]:
    return {"lines": [GOOD["lines"][0], {**GOOD["lines"][0], **changed}]}


@pytest.mark.parametrize(
    ("body", "status", "slug", "pointers"),
    [
        (b"", 400, "malformed-json", []),
        (b"{", 400, "malformed-json", []),
        (b'{"lines": nope}', 400, "malformed-json", []),
        (b"\xff\xfe", 400, "malformed-json", []),
        (b'{"lines":[{"sku":"\xff","quantity":1}]}', 400, "malformed-json", []),
        (b'{"x":' + b"[" * 1900, 400, "malformed-json", []),
        (b"[]", 422, "unprocessable", [""]),
        (b"null", 422, "unprocessable", [""]),
        (b"{}", 422, "unprocessable", ["/lines"]),
        ({"lines": []}, 422, "unprocessable", ["/lines"]),
        ({"lines": "tea"}, 422, "unprocessable", ["/lines"]),
        (lines(quantity=0), 422, "unprocessable", ["/lines/1/quantity"]),
        (lines(quantity="2"), 422, "unprocessable", ["/lines/1/quantity"]),
        (lines(quantity=1.5), 422, "unprocessable", ["/lines/1/quantity"]),
        (b'{"lines":[{"sku":"tea","quantity":1e400}]}', 422, "unprocessable", ["/lines/0/quantity"]),
        (b'{"lines":[{"sku":"a\\u0000b","quantity":1}],"x":1e400}', 422, "unprocessable", ["/lines/0/sku"]),
        (lines(quantity=10**30), 422, "unprocessable", ["/lines/1/quantity"]),
        (lines(sku=None), 422, "unprocessable", ["/lines/1/sku"]),
        ({"lines": [{"sku": "tea"}]}, 422, "unprocessable", ["/lines/0/quantity"]),
        (lines(sku="a\0b"), 422, "unprocessable", ["/lines/1/sku"]),
        ({**GOOD, "a/b": [{"~": "\0"}]}, 422, "unprocessable", ["/a~1b/0/~0"]),
        ({**GOOD, "x": {"\0": 1}}, 422, "unprocessable", ["/x"]),
        (b'{"lines":[{"sku":"a","quantity":1}],"n":' + b"9" * 1800 + b"}", 422, "unprocessable", ["/n"]),
        (b'{"lines":"tea","n":' + b"9" * 1800 + b"}", 422, "unprocessable", ["/lines"]),
        (b'{"lines":[{"sku":"a","quantity":1}],"n":' + b"[" * 900 + b"]" * 900 + b"}", 422, "unprocessable", ["/n"]),
        ({**GOOD, "notes": "x"}, 422, "unprocessable", ["/notes"]),
        ({**lines(unit_price="1"), "a/b": {}}, 422, "unprocessable", ["/lines/1/unit_price", "/a~1b"]),
        (b'{"lines":[{"sku":"a","quantity":1}],"lines":[]}', 422, "unprocessable", ["/lines"]),
        (b'{"lines":[{"sku":"a","quantity":1}],"lines":[{"sku":"a","quantity":1}]}', 422, "unprocessable", ["/lines"]),
        (b'{"lines":[{"sku":"a","sku":"b","quantity":1}]}', 422, "unprocessable", ["/lines/0/sku"]),
        (b'{"lines":[{"sku":"a","s\\u006bu":"b","quantity":1}]}', 422, "unprocessable", ["/lines/0/sku"]),
        (b'{"lines":[{"sku":"a","quantity":' + b"9" * 1800 + b"}]}", 422, "unprocessable", ["/lines/0/quantity"]),
        (b'{"lines": "tea", nope', 400, "malformed-json", []),
        ({**GOOD, "note": "x" * 3000}, 413, "too-large", []),
    ],
)
async def test_body(api: Api, body: Any, status: int, slug: str, pointers: list[str]) -> None:
    """What is no JSON is 400, JSON of another shape 422 with the first wrong field, too much 413."""
    reply = await api.ask("POST", "/things", body)

    assert (status, slug, pointers) == (reply.status, reply.slug, reply.pointers)
    assert reply.headers["content-type"] == "application/problem+json"


async def test_escaped_backslash_before_u0000_is_text(api: Api) -> None:
    r"""`\\u0000` is a backslash and five characters, not NUL."""
    reply = await api.ask("POST", "/things", b'{"lines":[{"sku":"a\\\\u0000","quantity":1}]}')

    assert (reply.status, reply.json["lines"][0]["sku"]) == (201, "a\\u0000")


@pytest.mark.parametrize(
    ("target", "status", "pointers"),
    [
        ("/things/17", 404, []),
        ("/things/0190a0a0-0000-7000-8000-00000000000g", 404, []),
        ("/things/%00", 400, []),
        ("/things/0190a0a0-0000-7000-8000-000000000000?limit=0", 422, ["/query/limit"]),
        ("/things/0190a0a0-0000-7000-8000-000000000000?limit=many&deep=perhaps", 422, ["/query/limit", "/query/deep"]),
        ("/things", 422, ["/query/limit"]),
        ("/things?limit=1&tag=%00", 422, ["/query/tag"]),
        ("/things?limit=1&limt=2&x%2Fy=3", 422, ["/query/limt", "/query/x~1y"]),
        ("/things?limit=1&limit=2", 422, ["/query/limit"]),
        ("/things?limit=1&tag=a&tag=b", 200, []),
        ("/things?limit=%ff", 400, []),
        ("/things?" + "&".join(f"a{i}=1" for i in range(101)), 400, []),
        ("/nothing", 404, []),
        ("/things/1/2/3", 404, []),
    ],
)
async def test_path_and_query(api: Api, target: str, status: int, pointers: list[str]) -> None:
    """A bad part of a path names nothing; a bad query names its parameters, all of them."""
    reply = await api.ask("GET", target)

    assert (status, pointers) == (reply.status, reply.pointers)


async def test_method(api: Api) -> None:
    """Another method is 405 and says which are possible."""
    reply = await api.ask("DELETE", "/things")

    assert (reply.status, reply.slug) == (405, "method-not-allowed")
    assert {"GET", "HEAD", "POST", "OPTIONS"} == set(reply.headers["allow"].split(", "))


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
async def test_content_type(api: Api, media: str) -> None:
    """A body that says it is something else is 415."""
    reply = await api.ask("POST", "/things", GOOD, headers={"content-type": media})

    assert (reply.status, reply.slug) == (415, "unsupported-media-type")


@pytest.mark.parametrize(
    "media", ["application/json; charset=utf-8", "Application/JSON", "application/merge-patch+json"]
)
async def test_content_type_of_json(api: Api, media: str) -> None:
    """JSON by another name is JSON."""
    assert (await api.ask("POST", "/things", GOOD, headers={"content-type": media})).status == 201


async def test_what_is_wrong_is_named_with_what_is_allowed(api: Api) -> None:
    """An unknown field or parameter is answered with the names that there are."""
    body = await api.ask("POST", "/things", {**GOOD, "unit_price": 1})
    query = await api.ask("GET", "/things?limit=1&page=2")

    assert body.json["errors"] == [{"pointer": "/unit_price", "reason": "is not a field here; there are lines, note"}]
    assert query.json["errors"][0]["reason"] == "is not a parameter here; there are limit, tag"


@pytest.mark.parametrize("coding", ["gzip", "br", "x-nonsense", "gzip, identity"])
async def test_content_coding(api: Api, coding: str) -> None:
    """A coding that isn't undone is 415 and says which is accepted, whether or not the bytes are JSON."""
    reply = await api.ask("POST", "/things", GOOD, headers={"content-encoding": coding})

    assert (reply.status, reply.headers["accept-encoding"]) == (415, "identity")


async def test_identity_is_no_coding(api: Api) -> None:
    """`Content-Encoding: identity` changes nothing."""
    assert (await api.ask("POST", "/things", GOOD, headers={"content-encoding": "Identity"})).status == 201


async def test_charset(api: Api) -> None:
    """JSON in another charset than UTF-8 is 415."""
    utf16 = {"content-type": "application/json; charset=utf-16"}

    assert (await api.ask("POST", "/things", GOOD, headers=utf16)).status == 415


@pytest.mark.parametrize(("body", "status"), [({"lines": [1]}, 422), (b"{", 400), ({}, 409), (b"", 409)])
async def test_body_where_none_is_taken(api: Api, issuer: TokenIssuer, body: Any, status: int) -> None:
    """A request that takes no body is not carried out if one says something."""
    reply = await api.ask("POST", f"/things/{THING}/end", body, token=issuer.token(roles=("admin",)))

    assert reply.status == status


async def test_tolerant_route(api: Api) -> None:
    """Between services what isn't known is read past."""
    reply = await api.ask("POST", "/internal?x=1", b'{"lines":[{"sku":"tea","quantity":2,"new":1}],"new":{}}')

    assert reply.status == 200


async def test_declared_too_large(api: Api) -> None:
    """A declared length over the limit is refused at once, although the body never comes."""
    token = str(api.token).encode()
    answer = await api.say(HEAD % token + b"content-length: 99999999\r\n\r\n", b"[")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_chunked_too_large(api: Api) -> None:
    """A chunked body is counted while it is read."""
    token = str(api.token).encode()
    chunk = b"3e8\r\n" + b" " * 1000 + b"\r\n"
    answer = await api.say(HEAD % token + b"transfer-encoding: chunked\r\n\r\n", *[chunk] * 5, b"0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_chunked_within_the_limit(api: Api) -> None:
    """A chunked body is as good as any."""
    body = msgspec.json.encode(GOOD)
    framed = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = HEAD % str(api.token).encode() + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"

    assert (await api.say(head, framed)).startswith(b"HTTP/1.1 201 ")


async def test_slow_body(api: Api) -> None:
    """A body that doesn't arrive in time is 408, however it trickles."""
    head = HEAD % str(api.token).encode() + b"content-length: 100\r\n\r\n"
    answer = await api.say(head, b"{", 0.2, b'"', 0.3, b"l")

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"within 0.4 s" in answer


async def test_client_that_leaves(api: Api) -> None:
    """A client that leaves in the middle of its body is counted, and the service goes on."""
    _, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(HEAD % str(api.token).encode() + b"content-length: 100\r\n\r\n{")
    await writer.drain()

    async def metrics() -> str:
        return (await api.ask("GET", "/metrics")).body.decode()

    async def arrived() -> bool:
        return "active_requests 2" in await metrics()

    async def counted() -> bool:
        return 'http_server_requests_total{method="POST",route="/things",status="499"} 1.0' in await metrics()

    await eventually(arrived)
    writer.close()
    await eventually(counted)


async def test_endless_head(api: Api) -> None:
    """A head that doesn't end is refused."""
    field = b"x-a: " + b"a" * 10_000 + b"\r\n"
    answer = await api.say(b"GET / HTTP/1.1\r\n", *[field] * 8)

    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("head_timeout", [0.1])
async def test_slow_head(api: Api) -> None:
    """A connection that sends no whole head in time is told and closed; one that sends nothing is closed."""
    assert (await api.say(b"GET / HTTP/1.1\r\n")).startswith(b"HTTP/1.1 408 ")
    assert await api.say(b"") == b""


async def test_no_http(api: Api) -> None:
    """What is no HTTP is refused and the connection closed."""
    assert (await api.say(b"GET me\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert (await api.say(b"HELLO\r\n\r\n")).startswith(b"HTTP/1.1 501 ")
