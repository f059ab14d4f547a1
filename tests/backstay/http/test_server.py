"""The small server: one request at a time per connection, nothing endless, an orderly end."""

import asyncio

import pytest

from backstay.http import HttpClient, HttpReply, HttpRequest, HttpServer, Limits


async def talk(port: int, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


def hello(request: HttpRequest) -> HttpReply:
    return HttpReply(200, f"{request.method} {request.path}".encode() + request.body, content_type="text/plain")


async def test_pipelined_requests_are_answered_in_order() -> None:
    """Requests that arrive together are answered one after the other."""
    async with HttpServer(hello) as server:
        answer = await talk(
            server.port,
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx"
            b"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )

    assert [part.split(b"HTTP/1.1")[0] for part in answer.split(b"\r\n\r\n")[1:]] == [b"GET /1", b"POST /2x", b"GET /3"]


async def test_an_offer_of_http_2_is_ignored() -> None:
    """Requests that offer h2c are answered over HTTP/1.1, with their bodies, and the next ones too."""
    offer = b" HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"
    async with HttpServer(hello, limits=Limits(body=10)) as server:
        answer = await talk(
            server.port,
            (b"POST /1" + offer + b"Content-Length: 1\r\n\r\nx")
            + (b"GET /2" + offer + b"\r\n")
            + (b"POST /3" + offer + b"Transfer-Encoding: chunked\r\n\r\n1\r\ny\r\n0\r\n\r\n")
            + (b"POST /4" + offer + b"Content-Length: 11\r\n\r\n" + b"z" * 11),
        )

    parts = [part.split(b"HTTP/1.1")[0] for part in answer.split(b"\r\n\r\n")[1:4]]
    assert parts == [b"POST /1x", b"GET /2", b"POST /3y"]
    assert answer.count(b"HTTP/1.1 413 ") == 1


async def test_head_has_no_body() -> None:
    """HEAD gets the length but not the body."""
    async with HttpServer(hello) as server:
        answer = await talk(server.port, b"HEAD /1 HTTP/1.0\r\n\r\n")

    assert b"content-length: 7\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


async def test_a_malformed_request_is_told_and_cut() -> None:
    """A smuggling attempt gets its status and the connection ends, after the good request before it."""
    async with HttpServer(hello) as server:
        answer = await talk(
            server.port,
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"
            b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        )

    assert b"GET /1HTTP/1.1 400 Bad Request" in answer
    assert b"/2" not in answer


async def test_a_large_body_is_refused() -> None:
    """A body above the limit is a 413."""
    async with HttpServer(hello, limits=Limits(body=10)) as server:
        answer = await talk(server.port, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"content-type: application/problem+json\r\n" in answer


async def test_continue_is_sent_before_the_body() -> None:
    """A client that expects 100 Continue gets it."""
    async with HttpServer(hello) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"x")
        assert (await reader.readuntil(b"POST /x")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_a_slow_client_is_closed() -> None:
    """A head that doesn't arrive in time is a 408 and the end; an idle connection just ends."""
    async with HttpServer(hello, head_timeout=0.05, idle_timeout=0.05) as server:
        begun, idle = await asyncio.gather(talk(server.port, b"GET / HT"), talk(server.port, b""))

    assert begun.startswith(b"HTTP/1.1 408 ")
    assert idle == b""


async def test_a_failing_handler_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    """What a handler raises is logged and not shown."""

    async def broken(request: HttpRequest) -> HttpReply:
        raise RuntimeError("secret")

    async with HttpServer(broken) as server, HttpClient() as client:
        response = await client.request("127.0.0.1", server.port, "GET", "/", timeout=5)

    assert (response.status, b"secret" in response.body) == (500, False)
    assert "secret" in caplog.text


async def test_leaving_waits_for_requests_in_flight() -> None:
    """The end of the server isn't the end of a request that it had begun; new connections are refused."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(request: HttpRequest) -> HttpReply:
        begun.set()
        await release.wait()
        return HttpReply(200, b"done")

    server = HttpServer(slow)
    await server.__aenter__()
    async with HttpClient() as client:
        call = asyncio.ensure_future(client.request("127.0.0.1", server.port, "GET", "/", timeout=5))
        await begun.wait()
        leaving = asyncio.ensure_future(server.__aexit__(None, None, None))
        await asyncio.sleep(0)
        with pytest.raises(ConnectionError):
            await client.request("127.0.0.1", server.port, "GET", "/", timeout=5)
        assert not leaving.done()
        release.set()

        assert (await call).body == b"done"
        await asyncio.wait_for(leaving, 5)


async def test_a_request_cancelled_before_its_first_step_is_forgotten() -> None:
    """A task that never ran can't report its end itself; nobody may wait for it."""

    async def answer() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            listener.over(asyncio.current_task())

    async with HttpServer(hello) as server:
        listener = server.listener
        unstarted = listener.run(answer())
        started = listener.run(answer())
        listener.give_up(unstarted)
        await asyncio.wait({unstarted})
        assert listener._tasks == {started}
        listener.give_up(started)
        await asyncio.wait({started})
        assert not listener._tasks
