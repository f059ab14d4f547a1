"""Answers as they go out, whatever the application does."""

import asyncio
import socket
from typing import Any

import pytest

from backstay.http.phases import Timeouts

GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
STALLS = Timeouts(stall=0.2)
CLOSE = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"


def answering(*pieces: bytes, status: int = 200, headers: list[tuple[bytes, bytes]] | None = None) -> Any:
    """An application with this answer."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers or []})
        for number, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces) - 1})

    return app


async def test_a_whole_answer_is_one_write(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Head and body leave together, with their length."""
    written: list[bytes] = []
    monkeypatch.setattr(
        "backstay.http.inbound.InboundConnection.write",
        lambda self, data: (written.append(data), self.transport.write(data)),
    )
    served = await serve(answering(b"hello", headers=[(b"X-Some", b"1"), (b"content-length", b"5")]))
    answer = await served.ask(CLOSE)

    assert answer == b"HTTP/1.1 200 OK\r\nx-some: 1\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
    assert written == [answer]


@pytest.mark.parametrize(
    ("request_", "status", "pieces", "headers", "answer"),
    [
        (CLOSE, 200, [b"ab"], [], b"content-length: 2\r\nconnection: close\r\n\r\nab"),
        (CLOSE, 200, [b""], [], b"content-length: 0\r\nconnection: close\r\n\r\n"),
        (CLOSE, 204, [b""], [(b"content-length", b"0")], b"connection: close\r\n\r\n"),
        (CLOSE, 304, [b""], [(b"content-length", b"9")], b"content-length: 9\r\nconnection: close\r\n\r\n"),
        (
            CLOSE,
            200,
            [b"ab", b"", b"c"],
            [],
            b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
        ),
        (
            CLOSE,
            200,
            [b"ab", b"c"],
            [(b"Content-Length", b"3"), (b"transfer-encoding", b"chunked")],
            b"content-length: 3\r\nconnection: close\r\n\r\nabc",
        ),
        (GET, 200, [b"ab"], [(b"connection", b"close")], b"content-length: 2\r\nconnection: close\r\n\r\nab"),
        (b"GET / HTTP/1.0\r\n\r\n", 200, [b"ab", b"c"], [], b"connection: close\r\n\r\nabc"),
        (CLOSE.replace(b"GET", b"HEAD"), 200, [b"ab"], [], b"content-length: 2\r\nconnection: close\r\n\r\n"),
        (CLOSE.replace(b"GET", b"HEAD"), 200, [b"ab", b"c"], [], b"connection: close\r\n\r\n"),
    ],
)
async def test_framing(serve, request_: bytes, status: int, pieces: list[bytes], headers: Any, answer: bytes) -> None:
    """The end of a body is told by its length, by chunks or by the end of the connection; some answers have none."""
    got = await (await serve(answering(*pieces, status=status, headers=headers))).ask(request_)

    assert got.partition(b"\r\n")[2] == answer


async def test_old_clients_can_keep_a_connection(serve) -> None:
    """HTTP/1.0 with `keep-alive` is told that it may go on."""
    peer = await (await serve(answering(b"ab"))).connect()
    for _ in range(2):
        peer.say(b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        assert b"\r\nconnection: keep-alive\r\n" in await peer.hear(b"ab")


async def test_events_leave_at_once(serve) -> None:
    """Each piece of a stream is out before the next is made, and the stream ends when the client leaves."""
    peer_heard, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
                await peer_heard.wait()
                await asyncio.sleep(0)
        except OSError:
            left.set()

    peer = await (await serve(app)).connect()
    peer.say(GET)
    assert (await peer.hear(b"data: x\n\n")).endswith(b"\r\n\r\n9\r\ndata: x\n\n")
    peer_heard.set()
    peer.writer.transport.abort()

    await asyncio.wait_for(left.wait(), 30)


async def test_a_client_that_does_not_read_holds_the_application(serve) -> None:
    """Sending waits while the client takes nothing, and the client is cut off after a while."""
    sent, left = 0, asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                sent += 1
        except OSError:
            left.set()

    served = await serve(app, timeouts=STALLS)
    lazy = socket.create_connection(("127.0.0.1", served.server.port))
    try:
        lazy.sendall(GET)
        await asyncio.wait_for(left.wait(), 30)
        assert sent < 1000
    finally:
        lazy.close()


async def test_a_client_that_does_not_read_a_whole_answer_is_cut_off(serve) -> None:
    """Also when the answer is over and the connection should close."""
    served = await serve(answering(b"x" * 30_000_000), timeouts=STALLS)
    lazy = socket.create_connection(("127.0.0.1", served.server.port))
    try:
        lazy.sendall(CLOSE)
        async with asyncio.timeout(30):
            while not served.server._connections:
                await asyncio.sleep(0)
            while served.server._connections:
                await asyncio.sleep(0.01)
    finally:
        lazy.close()


async def failing(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("secret")


async def silent(scope: Any, receive: Any, send: Any) -> None:
    """Says nothing."""


@pytest.mark.parametrize(
    "app",
    [
        failing,
        silent,
        answering(b"abc", headers=[(b"content-length", b"2")]),
        answering(b"abc", headers=[(b"content-length", b"4")]),
        answering(b"abc", headers=[(b"content-length", b"-1")]),
        answering(b"abc", headers=[(b"x", b"a\r\nset-cookie: b")]),
        answering(b"abc", headers=[(b"x y", b"a")]),
        answering(b"abc", status=100),
    ],
)
async def test_an_application_that_fails_before_its_answer(serve, app: Any) -> None:
    """It is a 500 without a word of the error, and the connection ends."""
    answer = await (await serve(app)).ask(GET)

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"connection: close\r\n" in answer
    assert b"content-type: application/problem+json\r\n" in answer
    assert b"secret" not in answer


async def test_an_application_that_fails_in_its_answer(serve) -> None:
    """The connection is cut, so that nobody takes a part for the whole."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError("secret")

    answer = await (await serve(app)).ask(GET)

    assert answer.endswith(b"\r\n\r\n4\r\nhalf\r\n"), "the last chunk is missing"


async def test_what_comes_after_the_answer_is_refused(serve) -> None:
    """A second answer is the application's mistake, not the client's."""
    errors: list[Exception] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answering(b"ab")(scope, receive, send)
        assert (await receive())["type"] == "http.disconnect"
        try:
            await answering(b"cd")(scope, receive, send)
        except RuntimeError as error:
            errors.append(error)

    assert (await (await serve(app)).ask(CLOSE)).endswith(b"\r\n\r\nab")
    assert len(errors) == 1


class Slow:
    """An application that answers when it is let."""

    def __init__(self) -> None:
        self.begun, self.go, self.cancelled = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        await answering(b"done")(scope, receive, send)


async def test_leaving_finishes_what_was_begun(serve) -> None:
    """Idle connections close at once, new ones are refused, the request in flight is answered as the last."""
    app = Slow()
    served = await serve(app)
    idle, busy = await served.connect(), await served.connect()
    busy.say(GET + GET)
    await app.begun.wait()
    leaving = asyncio.ensure_future(served.server.__aexit__(None, None, None))
    assert await idle.hear_all() == b""
    with pytest.raises(ConnectionError):
        await served.connect()
    assert not leaving.done()
    app.go.set()
    answer = await busy.hear_all()

    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"connection: close\r\n" in answer
    await asyncio.wait_for(leaving, 30)
    await asyncio.wait_for(served.server.ended(), 30)


@pytest.mark.parametrize("hurried", [False, True])
async def test_leaving_does_not_wait_for_ever(serve, hurried: bool) -> None:
    """After the drain, or after `stop_draining`, requests are cancelled and their clients told."""
    app = Slow()
    served = await serve(app, drain=600.0 if hurried else 0.05)
    peer = await served.connect()
    peer.say(GET)
    await app.begun.wait()
    leaving = asyncio.ensure_future(served.server.__aexit__(None, None, None))
    if hurried:
        await asyncio.sleep(0)
        served.server.stop_draining()

    assert (await peer.hear_all()).startswith(b"HTTP/1.1 500 ")
    await asyncio.wait_for(leaving, 30)
    assert app.cancelled.is_set()
