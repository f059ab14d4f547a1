"""Calls to other services: what goes out, what an answer means, and where else to go."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from backstay import resilience as r
from backstay.discovery import Instance, NoInstance, StaticRegistry, Unreachable
from backstay.errors import ConfigError
from backstay.http import HttpClient, HttpReply, HttpRequest, HttpServer
from backstay.service import Client, UpstreamError, UpstreamRefused, client
from backstay.service.client import Target
from backstay.telemetry import TraceContext, use


class Stock(msgspec.Struct):
    drink: str
    left: int


class Upstream:
    """A service to call: keeps what it was asked, and answers what it was told to."""

    def __init__(self) -> None:
        self.requests: list[HttpRequest] = []
        self.answer: Callable[[HttpRequest], HttpReply] = lambda _: HttpReply(200, b'{"drink":"tea","left":3}')
        self.port = 0

    def __call__(self, request: HttpRequest) -> HttpReply:
        self.requests.append(request)
        return self.answer(request)

    def always(self, status: int, body: bytes = b"") -> None:
        self.answer = lambda _: HttpReply(status, body, content_type="application/problem+json")


class Token:
    """Stands in for the service's own token."""

    def __init__(self) -> None:
        self.renewed = 0

    def token(self) -> str:
        return f"token-{self.renewed}"

    def renew(self) -> None:
        self.renewed += 1


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    async with HttpServer(upstream, "127.0.0.1", 0) as server:
        upstream.port = server.port
        yield upstream


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    async with HttpClient() as http:
        yield http


def bound(
    http: HttpClient, upstream: Upstream, *layers: Any, registry: Any = None, token: Token | None = None
) -> Client:
    made = client("lb://beans", r.pipeline(*layers) if layers else None, timeout=5.0)
    made.bind(http, registry or StaticRegistry({"beans": [f"127.0.0.1:{upstream.port}"]}), token)
    return made


async def test_get_and_post(http: HttpClient, upstream: Upstream) -> None:
    """Bodies go out as JSON and come back as their model."""
    beans = bound(http, upstream)

    assert await beans.get("/stock/tea", Stock) == Stock("tea", 3)
    assert await beans.post("/stock", Stock("tea", 1), Stock, headers={"Idempotency-Key": "k"}) == Stock("tea", 3)
    get, post = upstream.requests
    assert (get.method, get.path) == ("GET", "/stock/tea")
    assert (post.body, post.headers["content-type"]) == (b'{"drink":"tea","left":1}', "application/json")
    assert post.headers["idempotency-key"] == "k"


async def test_what_travels_along(http: HttpClient, upstream: Upstream) -> None:
    """Our own token, the trace (another span of it) and what remains of the deadline go with every call."""
    context = TraceContext.new(sampled=True)
    with use(context), r.deadline(2.0):
        await bound(http, upstream, token=Token()).get("/stock/tea", Stock)
    headers = upstream.requests[0].headers
    sent = TraceContext.parse(headers["traceparent"])

    assert headers["authorization"] == "Bearer token-0"
    assert sent is not None
    assert (sent.trace_id, sent.sampled) == (context.trace_id, True)
    assert sent.span_id != context.span_id
    assert 1000 < int(headers["x-request-deadline-ms"]) <= 2000


async def test_deadline_has_passed(http: HttpClient, upstream: Upstream) -> None:
    """No call is made that nobody waits for."""
    with r.deadline(0.0), pytest.raises(r.DeadlineExceeded):
        await bound(http, upstream).get("/stock/tea", Stock)
    assert upstream.requests == []


@pytest.mark.parametrize("status", [400, 404, 409, 422])
async def test_refused(http: HttpClient, upstream: Upstream, status: int) -> None:
    """4xx is an answer: told to the caller with its problem, not retried, not counted by the breaker."""
    upstream.always(status, b'{"type":"urn:backstay:problem:sold-out","detail":"no beans","sku":"tea"}')
    breaker = r.CircuitBreaker("beans", min_calls=1, failure_rate=1)

    with pytest.raises(UpstreamRefused, match=f"beans answered {status}: no beans") as refused:
        await bound(http, upstream, r.Retry(3, wait=0.0), breaker).get("/stock/tea", Stock)
    assert (refused.value.slug, refused.value.problem["sku"]) == ("sold-out", "tea")
    assert (len(upstream.requests), breaker.state) == (1, r.State.CLOSED)


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
async def test_failed(http: HttpClient, upstream: Upstream, status: int) -> None:
    """5xx, and a 4xx of the moment, is a failure: retried, and counted."""
    upstream.always(status, b"<html>")
    breaker = r.CircuitBreaker("beans", min_calls=2, failure_rate=1)

    with pytest.raises((UpstreamError, r.Rejected)):
        await bound(http, upstream, r.Retry(3, wait=0.0), breaker).get("/stock/tea", Stock)
    assert (len(upstream.requests), breaker.state) == (2, r.State.OPEN)


async def test_refused_token_is_renewed(http: HttpClient, upstream: Upstream) -> None:
    """401 means our token, not the caller's request: another is asked for, and the call has failed for now."""
    upstream.answer = lambda request: (
        HttpReply(401) if request.headers["authorization"].endswith("0") else HttpReply(200, b'{"drink":"x","left":1}')
    )

    assert await bound(http, upstream, r.Retry(2, wait=0.0), token=Token()).get("/s", Stock) == Stock("x", 1)


async def test_answer_of_another_shape(http: HttpClient, upstream: Upstream) -> None:
    """An answer that isn't what we expect is their failure, and says where."""
    upstream.always(200, b'{"drink":"tea"}')

    with pytest.raises(UpstreamError, match=r"not a Stock.*left"):
        await bound(http, upstream).get("/stock/tea", Stock)


async def test_nobody_there(http: HttpClient, upstream: Upstream) -> None:
    """No instance is a ConnectionError raised inside the pipeline, so its breaker counts it."""
    breaker = r.CircuitBreaker("beans", min_calls=1, failure_rate=1)
    beans = bound(http, upstream, breaker, registry=StaticRegistry({}))

    with pytest.raises(NoInstance):
        await beans.get("/stock/tea", Stock)
    assert breaker.state is r.State.OPEN


async def test_refused_connection_goes_to_the_next_instance(http: HttpClient, upstream: Upstream) -> None:
    """A dead instance is left out for a while, and the call goes on at once."""
    dead = await unused_port()
    registry = StaticRegistry({"beans": [f"127.0.0.1:{dead}", f"127.0.0.1:{upstream.port}"]})
    beans = bound(http, upstream, registry=registry)
    for _ in range(4):
        await beans.get("/stock/tea", Stock)

    assert {registry.choose("beans").port for _ in range(4)} == {upstream.port}


async def test_an_instance_that_takes_tls_only(http: HttpClient, upstream: Upstream) -> None:
    """Nothing is sent there: the caller gets a ConnectionError with the reason."""
    only = Instance("beans", "1", "127.0.0.1", upstream.port, secure=True)
    beans = bound(http, upstream, registry=StaticRegistry({"beans": [only]}))

    with pytest.raises(Unreachable, match="TLS only"):
        await beans.get("/stock/tea", Stock)

    assert upstream.requests == []


async def test_all_connections_refused(http: HttpClient, upstream: Upstream) -> None:
    """When nobody accepts, the caller gets a ConnectionError."""
    beans = bound(http, upstream, registry=StaticRegistry({"beans": [Instance("beans", "1", "127.0.0.1", 9)]}))

    with pytest.raises(ConnectionError):
        await beans.get("/stock/tea", Stock)


async def test_time_limit(http: HttpClient) -> None:
    """A time limiter in the pipeline ends an attempt."""
    left = asyncio.Event()

    async def read_only(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        left.set()

    async with await asyncio.start_server(read_only, "127.0.0.1", 0) as server:
        slow = client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", r.pipeline(r.TimeLimiter(0.05)))
        slow.bind(http, None, None)
        with pytest.raises(TimeoutError):
            await slow.get("/", Stock)
        await left.wait()


async def test_by_hand(upstream: Upstream) -> None:
    """A client of a fixed address needs no service around it; one by name says what it lacks."""
    async with client(f"http://127.0.0.1:{upstream.port}/base/") as plain:
        assert (await plain.request("GET", "/x")).status == 200
    assert upstream.requests[0].path == "/base/x"
    with pytest.raises(ConfigError, match="DISCOVERY_URL"):
        await client("lb://beans").__aenter__()
    with pytest.raises(ConfigError, match="was not entered"):
        await client("http://127.0.0.1:1").get("/", Stock)


@pytest.mark.parametrize("url", ["beans", "https://beans", "lb://", "ftp://x", "http://x:port"])
def test_addresses(url: str) -> None:
    """Any other address is refused when the client is made."""
    with pytest.raises(ConfigError):
        Target.parse(url)


async def unused_port() -> int:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


async def test_our_own_deadline_is_not_their_failure(http: HttpClient, upstream: Upstream) -> None:
    """No answer within the time that the request left, or one that says so, gives the breaker's permit back."""
    guard = r.CircuitBreaker("beans", window=r.last(4), min_calls=1)
    beans = bound(http, upstream, guard)
    body = b'{"type":"urn:problem:deadline-exceeded"}'
    upstream.always(504, body)
    with r.deadline(2.0), pytest.raises(r.DeadlineTimeout, match="left are over"):
        await beans.get("/stock/tea", Stock)
    unguarded = bound(http, upstream)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        registry = StaticRegistry({"beans": [f"127.0.0.1:{silent.getsockname()[1]}"]})
        for one in (bound(http, upstream, guard, registry=registry), bound(http, upstream, registry=registry)):
            with r.deadline(0.05), pytest.raises(r.DeadlineTimeout):
                await one.get("/stock/tea", Stock)

    assert guard.statistics().deadline_exceeded_total == 2
    assert guard.state is r.State.CLOSED

    upstream.always(504, b'{"type":"urn:problem:something-else"}')
    with r.deadline(2.0), pytest.raises(UpstreamError):
        await unguarded.get("/stock/tea", Stock)
    upstream.always(504, body)
    with pytest.raises(UpstreamError):  # no deadline of ours: they answer for it
        await unguarded.get("/stock/tea", Stock)
