"""The client against servers that misbehave, on real sockets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from backstay.http import (
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    HttpClient,
    HttpReply,
    HttpRequest,
    HttpServer,
    PoolFull,
    ResponseTimeout,
)

Behaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def upstream(behave: Behaviour) -> AsyncIterator[int]:
    """A server whose every connection is one call of `behave`; gives its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await behave(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def answering(*answers: bytes) -> Behaviour:
    """One answer per request on each connection, then the end."""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)

    return behave


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

ANSWERS = {
    "length": (OK, 200, b"ok"),
    "chunks": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x\r\nbc\r\n0\r\nT: 1\r\n\r\n",
        200,
        b"abc",
    ),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nabc", 200, b"abc"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nabc", 200, b"abc"),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "304 with a length": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b""),
    "after 100 and 103": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
    "a status without a name": (b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n", 299, b""),
}


@pytest.mark.parametrize(("answer", "status", "body"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_every_kind_of_answer_is_read(answer: bytes, status: int, body: bytes) -> None:
    """However an answer's body is delimited, its end is found."""
    async with upstream(answering(answer)) as port, HttpClient() as client:
        response = await client.request("127.0.0.1", port, "GET", "/", timeout=5)

    assert (status, body) == (response.status, response.body)


BAD_ANSWERS = {
    "noise": b"hello\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk",
    "length and chunked": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "endless head": b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000,
    "switch": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    "too large": b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + b"a" * 2000,
}


@pytest.mark.parametrize("answer", BAD_ANSWERS.values(), ids=BAD_ANSWERS.keys())
async def test_a_bad_answer_is_named(answer: bytes) -> None:
    """An answer that breaks the rules is a BadResponse, not a guess."""
    async with upstream(answering(answer)) as port, HttpClient() as client:
        with pytest.raises(BadResponse):
            await client.request("127.0.0.1", port, "GET", "/", timeout=5, max_body=1000)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", b"HTTP/1.1 2"])
async def test_a_cut_answer_is_lost(answer: bytes) -> None:
    """A connection that dies before the end of the answer is ConnectionLost, which is a ConnectionError."""
    async with upstream(answering(answer)) as port, HttpClient() as client:
        with pytest.raises(ConnectionLost) as lost:
            await client.request("127.0.0.1", port, "GET", "/", timeout=5)

    assert bool(answer) == lost.value.answered
    assert isinstance(lost.value, ConnectionError)


async def test_nobody_there() -> None:
    """A refused connection is ConnectFailed: nothing was sent."""
    async with upstream(answering()) as port:
        pass
    async with HttpClient() as client:
        with pytest.raises(ConnectFailed, match="refused"):
            await client.request("127.0.0.1", port, "GET", "/", timeout=5)


async def test_silence_times_out() -> None:
    """A server that never answers costs the caller its timeout and no more, and the connection isn't kept."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with upstream(silent) as port, HttpClient() as client:
        with pytest.raises(ResponseTimeout) as late:
            await client.request("127.0.0.1", port, "GET", "/", timeout=0.05)
        await asyncio.sleep(0)

        assert isinstance(late.value, TimeoutError)
        assert client.statistics().idle == 0


async def test_cancelling_closes_the_connection() -> None:
    """A cancelled call ends at once, and the server sees the connection close."""
    arrived, closed = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        try:
            await reader.read()
        finally:
            closed.set()

    async with upstream(silent) as port, HttpClient() as client:
        task = asyncio.ensure_future(client.request("127.0.0.1", port, "GET", "/", timeout=5))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(closed.wait(), 5)


async def echo(request: HttpRequest) -> HttpReply:
    text = f"{request.method} {request.path} {request.query} {request.headers.get('x-a')} "
    return HttpReply(200, text.encode() + request.body, headers=[("x-b", "2")])


async def test_connections_are_kept() -> None:
    """Requests one after the other, also HEAD and bodies, use one connection."""
    async with HttpServer(echo) as server, HttpClient() as client:
        for _ in range(3):
            response = await client.request(
                "127.0.0.1", server.port, "POST", "/p?q=1", headers=[("X-A", "1")], body=b"body", timeout=5
            )
            head = await client.request("127.0.0.1", server.port, "HEAD", "/p", timeout=5)

        assert response.body == b"POST /p q=1 1 body"
        assert response.headers.get("X-B") == "2"
        assert (head.status, head.body) == (200, b"")
        assert client.statistics().opened == 1


class Stale:
    """Answers the first request on its first connection, reads a second one there and hangs up without a word."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.connections = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        first = self.connections == 1
        while True:
            self.requests.append((await reader.readuntil(b"\r\n\r\n")).split(b" ")[0])
            if first and len(self.requests) > 1:
                return
            writer.write(OK)


async def test_a_stale_connection_is_replayed_once() -> None:
    """An idempotent request that a dying keep-alive connection swallowed is sent again on a fresh one."""
    stale = Stale()
    async with upstream(stale) as port, HttpClient() as client:
        await client.request("127.0.0.1", port, "GET", "/", timeout=5)
        response = await client.request("127.0.0.1", port, "GET", "/", timeout=5)

    assert (response.status, len(stale.requests), stale.connections) == (200, 3, 2)


async def test_a_post_is_not_replayed() -> None:
    """A POST may have had its effect, so its loss is reported."""
    stale = Stale()
    async with upstream(stale) as port, HttpClient() as client:
        await client.request("127.0.0.1", port, "GET", "/", timeout=5)
        with pytest.raises(ConnectionLost):
            await client.request("127.0.0.1", port, "POST", "/", timeout=5)

    assert stale.requests == [b"GET", b"POST"]


async def test_a_post_with_a_key_is_replayed() -> None:
    """An Idempotency-Key makes a repetition harmless."""
    stale = Stale()
    async with upstream(stale) as port, HttpClient() as client:
        await client.request("127.0.0.1", port, "GET", "/", timeout=5)
        response = await client.request("127.0.0.1", port, "POST", "/", headers=[("Idempotency-Key", "k")], timeout=5)

    assert (response.status, stale.requests) == (200, [b"GET", b"POST", b"POST"])


async def test_an_unasked_answer_poisons_the_connection() -> None:
    """Bytes after the answer are nobody's answer: the connection isn't used again."""
    async with upstream(answering(OK + OK, OK)) as port, HttpClient() as client:
        await client.request("127.0.0.1", port, "GET", "/", timeout=5)
        await client.request("127.0.0.1", port, "GET", "/", timeout=5)

        assert client.statistics().opened == 2


async def test_the_pool_is_bounded() -> None:
    """More calls than connections allowed are refused at once, not queued."""
    release = asyncio.Event()

    async def slow(request: HttpRequest) -> HttpReply:
        await release.wait()
        return HttpReply(204)

    async with HttpServer(slow) as server, HttpClient(max_per_address=1) as client:
        first = asyncio.ensure_future(client.request("127.0.0.1", server.port, "GET", "/", timeout=5))
        await asyncio.sleep(0)
        with pytest.raises(PoolFull):
            await client.request("127.0.0.1", server.port, "GET", "/", timeout=5)
        release.set()

        assert (await first).status == 204


@pytest.mark.parametrize(
    ("method", "target", "headers"),
    [
        ("GET", "no-slash", []),
        ("GET", "/a b", []),
        ("GET", "/\r\nX: y", []),
        ("GE T", "/", []),
        ("GET", "/", [("X", "a\r\nY: b")]),
        ("GET", "/", [("Content-Length", "3")]),
        ("GET", "/", [("Transfer-Encoding", "chunked")]),
    ],
)
async def test_a_request_that_breaks_framing_is_never_written(
    method: str, target: str, headers: list[tuple[str, str]]
) -> None:
    """Nothing a caller passes can turn into a second request."""
    async with HttpClient() as client:
        with pytest.raises(ValueError, match=r".+"):
            await client.request("127.0.0.1", 1, method, target, headers=headers, timeout=1)
