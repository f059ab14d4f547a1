"""Requests as an ASGI application sees them, however their bytes arrive."""

import asyncio
import json
from contextvars import ContextVar
from typing import Any

import pytest

from backstay.http.application import READ_AHEAD
from backstay.http.phases import Timeouts
from backstay.http.problems import MALFORMED
from backstay.service.server import HEAD_TIMEOUT, MAX_HEAD, Server, bind

POST = b"POST /a HTTP/1.1\r\nhost: x\r\n"
LAST = b"GET /last HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


async def tell(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what was asked: method, path, length and beginning of the body."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    told = f"[{scope['method']} {scope['path']} {len(body)} {body[:10].decode('latin-1')}]".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": told})


async def test_scope(serve) -> None:
    """Everything that ASGI promises of a request."""
    scopes: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await tell(scope, receive, send)

    served = await serve(app)
    await served.ask(b"PUT /a%20b/%C3%A4?c=%20&d HTTP/1.1\r\nHost: x\r\nX-Some:  a b\r\nConnection: close\r\n\r\n")
    scope = scopes[0]

    assert (scope["type"], scope["asgi"]["version"], scope["http_version"]) == ("http", "3.0", "1.1")
    assert (scope["method"], scope["scheme"], scope["root_path"]) == ("PUT", "http", "")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a b/ä", b"/a%20b/%C3%A4", b"c=%20&d")
    assert scope["headers"] == [(b"host", b"x"), (b"x-some", b"a b"), (b"connection", b"close")]
    assert scope["server"] == ("127.0.0.1", served.server.port)
    assert (scope["client"][0], scope["state"]) == ("127.0.0.1", {})


async def test_an_offer_of_http_2_is_ignored(serve) -> None:
    """Requests that offer h2c are answered over HTTP/1.1, with their bodies, and the next ones too."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
    wire = (
        (POST + offer + b"content-length: 3\r\n\r\nabc")
        + (b"GET /b HTTP/1.1\r\nhost: x\r\n" + offer + b"\r\n")
        + (POST + offer + b"transfer-encoding: chunked\r\n\r\n2\r\nde\r\n0\r\n\r\n")
        + LAST
    )
    served = await serve(tell)

    answer = await served.ask(wire)

    assert answer.count(b"HTTP/1.1 200 ") == 4
    told = [answer.find(each) for each in (b"[POST /a 3 abc]", b"[GET /b 0 ]", b"[POST /a 2 de]", b"[GET /last 0 ]")]
    assert -1 not in told
    assert told == sorted(told)


async def test_requests_in_any_pieces(serve) -> None:
    """Pipelined requests with bodies of both kinds, split anywhere: the same answers in the same order."""
    wire = (
        POST
        + b"content-length: 3\r\n\r\nabc"
        + POST
        + b"transfer-encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
        b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n" + LAST
    )
    told = [b"[POST /a 3 abc]", b"[POST /a 3 def]", b"[GET /b 0 ]", b"[GET /last 0 ]"]
    served = await serve(tell)
    for size in (len(wire), 1, 7, 40, 100):
        peer = await served.connect()
        for start in range(0, len(wire), size):
            peer.say(wire[start : start + size])
            await asyncio.sleep(0)
        answers = await peer.hear_all()
        assert [part for part in answers.replace(b"]", b"]\n").splitlines() if part.startswith(b"[")] == told, size


async def test_one_at_a_time(serve) -> None:
    """Of requests that arrive together the second begins when the first is answered."""
    active, most = 0, 0
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await go.wait()
        active -= 1
        await tell(scope, receive, send)

    peer = await (await serve(app)).connect()
    peer.say((POST + b"\r\n") * 50 + LAST)
    while not active:
        await asyncio.sleep(0)
    go.set()

    assert (await peer.hear_all()).count(b"HTTP/1.1 200") == 51
    assert most == 1


async def test_requests_share_no_context(serve) -> None:
    """What one request sets in its context the next doesn't see, not even one that waited behind it."""
    mark: ContextVar[str] = ContextVar("mark", default="none")
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(mark.get())
        mark.set(scope["path"])
        await tell(scope, receive, send)

    await (await serve(app)).ask((POST + b"\r\n") * 2 + LAST)

    assert seen == ["none"] * 3


async def test_a_body_that_nobody_reads_stays_with_the_client(serve) -> None:
    """Beyond a bound nothing is read until the application asks; then all of it arrives."""
    size, go = 32 * READ_AHEAD, asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        await tell(scope, receive, send)

    served = await serve(app)
    peer = await served.connect()
    peer.say(POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % size + b"x" * size)
    async with asyncio.timeout(30):
        while not (busy := [c._current for c in served.server._connections if c.busy]):
            await asyncio.sleep(0)
        exchange = busy[0]
        while exchange.buffered <= READ_AHEAD:
            await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert exchange.buffered < size / 4
    go.set()

    assert b"[POST /a %d xxxxxxxxxx]" % size in await peer.hear_all()


async def test_continue_when_the_body_is_asked_for(serve) -> None:
    """A client that expects 100 Continue gets it when the application first receives, and once."""
    peer = await (await serve(tell)).connect()
    peer.say(POST + b"connection: close\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n")
    assert await peer.hear(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    peer.say(b"o")
    peer.say(b"k")
    answer = await peer.hear_all()

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"[POST /a 2 ok]")


async def test_no_continue_for_a_body_that_nobody_wants(serve) -> None:
    """An application that doesn't receive asks for nothing; the connection ends, for nobody knows what comes next."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 403, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    answer = await (await serve(app)).ask(POST + b"content-length: 2\r\nexpect: 100-continue\r\n\r\n")

    assert answer == b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


async def test_a_small_body_that_nobody_reads_is_read_away(serve) -> None:
    """The next request is understood after a body that the application left."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    peer = await (await serve(app)).connect()
    peer.say(POST + b"content-length: 20000\r\n\r\n" + b"x" * 10_000)
    assert b"connection: close" not in await peer.hear(b"/a")
    peer.say(b"x" * 10_000 + LAST)

    assert (await peer.hear_all()).endswith(b"/last")


@pytest.mark.parametrize("framing", [b"content-length: 900000000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n"])
async def test_a_large_body_that_nobody_reads_ends_the_connection(serve, framing: bytes) -> None:
    """Too much to be read away: the answer arrives whole, then the connection ends."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b"no!"})

    peer = await (await serve(app)).connect()
    peer.say(POST + framing)
    for _ in range(100):
        peer.say(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
    answer = await peer.hear_all()

    assert answer.startswith(b"HTTP/1.1 401 ")
    assert answer.endswith(b"no!")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: a\r\n\r\n", 400),
        (POST + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (POST + b"transfer-encoding: gzip, chunked\r\n\r\n", 501),
        (b"HELLO / HTTP/1.1\r\nhost: a\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nhost: a\r\n\r\n", 505),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * (MAX_HEAD + 600_000), 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 201 + b"\r\n", 431),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_what_breaks_the_rules(serve, request_: bytes, status: int) -> None:
    """It is told as a problem, after the answers that are owed, and the connection ends."""
    answers = await (await serve(tell)).ask(b"GET /b HTTP/1.1\r\nhost: x\r\n\r\n" + request_)
    first, _, second = answers.partition(b"[GET /b 0 ]")

    assert first.startswith(b"HTTP/1.1 200 ")
    assert second.startswith(b"HTTP/1.1 %d " % status)
    assert b"content-type: application/problem+json\r\n" in second
    body = json.loads(second.partition(b"\r\n\r\n")[2])
    assert (body["status"], body["type"]) == (status, f"urn:backstay:problem:{MALFORMED[status]}")


async def test_a_body_that_breaks_the_rules_later(serve) -> None:
    """The application is told that no more comes; the client gets its 400."""
    seen: list[str] = []
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while not done.is_set():
            seen.append((await receive())["type"])
            if seen[-1] == "http.disconnect":
                done.set()
        with pytest.raises(OSError, match="left"):
            await tell(scope, receive, send)

    peer = await (await serve(app)).connect()
    peer.say(POST + b"transfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    while not seen:
        await asyncio.sleep(0)
    peer.say(b"not hex\r\n")

    assert (await peer.hear_all()).startswith(b"HTTP/1.1 400 ")
    await asyncio.wait_for(done.wait(), 30)
    assert seen == ["http.request", "http.disconnect"]


async def test_a_client_that_leaves(serve) -> None:
    """The application is told, and what it sends afterwards is an error of its own kind that nobody logs."""
    asked, told = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        asked.set()
        told.set_result(await receive())
        await tell(scope, receive, send)

    peer = await (await serve(app)).connect()
    peer.say(POST + b"\r\n")
    await asked.wait()
    peer.writer.close()

    assert await asyncio.wait_for(told, 30) == {"type": "http.disconnect"}


async def test_time_between_requests(serve) -> None:
    """An idle connection is closed after `keep_alive`, without a word."""
    peer = await (await serve(tell, keep_alive=0.05)).connect()
    peer.say(POST + b"\r\n")

    assert (await peer.hear_all()).endswith(b"[POST /a 0 ]")


async def test_time_for_a_head(serve) -> None:
    """A head must arrive in time, also behind another request; a request in work has all the time it needs."""

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(0.3)
        await tell(scope, receive, send)

    served = await serve(slow, timeouts=Timeouts(head=0.05))
    answers = await served.ask(POST + b"\r\nGET /b HTT")

    assert b"[POST /a 0 ]HTTP/1.1 408 " in answers
    assert await served.ask(b"") == b""


def test_names_and_limits() -> None:
    """What the documentation says of heads."""
    assert (HEAD_TIMEOUT, MAX_HEAD) == (10.0, 65536)
    assert Server.__doc__ is not None
    bind("127.0.0.1", 0).close()
