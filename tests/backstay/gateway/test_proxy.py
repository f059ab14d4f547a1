"""What goes through the gateway, and in which form."""

import asyncio
import json

import pytest

from backstay.http import Limits

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n"
POST = b"POST / HTTP/1.1\r\nHost: shop.test\r\n"


def says(data: bytes, *, keep: bool = True):
    async def behave(upstream, request, reader, writer):
        writer.write(data)
        await writer.drain()
        return keep

    return behave


async def test_a_request_goes_through_and_connections_are_kept(system):
    """Method, path, query, headers and body arrive as sent; both connections serve the next request too."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)

    for i in range(3):
        wire.send(b"POST /a/%d?q=%%20 HTTP/1.1\r\nHost: shop.test\r\nX-A: b\r\nContent-Length: 4\r\n\r\nbody" % i)
        answer = await wire.answer()

        assert (answer.status, answer.body) == (200, b"upstream")
    assert [request.target for request in upstream.requests] == ["/a/0?q=%20", "/a/1?q=%20", "/a/2?q=%20"]
    assert {("POST", b"body", "b")} == {(r.method, r.body, r.get("x-a")) for r in upstream.requests}
    assert upstream.connections == 1


async def test_a_chunked_body_arrives_chunked(system):
    """A body of unknown length is passed on in chunks, without its extensions and trailers."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)

    wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-User-Id: evil\r\n\r\n")
    answer = await wire.answer()

    assert answer.status == 200
    assert upstream.requests[0].body == b"abcde"
    assert upstream.requests[0].get("transfer-encoding") == "chunked"
    assert upstream.requests[0].get("content-length") is None


ANSWERS = {
    "chunked": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", True, b"abc"),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nabc", False, b"abc"),
    "length": (OK, True, b"ok"),
    "204": (b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", True, b""),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n", True, b""),
    "early hints first": (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, True, b"ok"),
    "status without a name": (b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n", True, b""),
}


@pytest.mark.parametrize(("data", "keep", "body"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_every_kind_of_answer_comes_back(system, data, keep, body):
    """However the upstream delimits its answer, the client gets it whole and can ask again."""
    upstream = await system.upstream(says(data, keep=keep))
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)

    for _ in range(2):
        wire.send(GET + b"\r\n")
        answer = await wire.answer()
        assert body == answer.body


async def test_http_1_0_clients_get_no_chunks(system):
    """An HTTP/1.0 client finds the end of a chunked answer by the end of the connection."""
    upstream = await system.upstream(says(ANSWERS["chunked"][0]))
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(b"GET / HTTP/1.0\r\n\r\n")

    whole = await wire.ended()

    assert whole.endswith(b"connection: close\r\n\r\nabc")


async def test_head_has_a_length_and_no_body(system):
    """HEAD passes the length on, and the connection is in step afterwards."""
    upstream = await system.upstream(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"))
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)

    for _ in range(2):
        wire.send(b"HEAD / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
        answer = await wire.answer(head_only=True)
        assert (answer.status, answer.get("content-length")) == (200, "5")


async def test_early_hints_are_passed_on(system):
    """103 goes to the client before the answer."""
    upstream = await system.upstream(says(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK))
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")

    hints, answer = await wire.answer(), await wire.answer()

    assert (hints.status, hints.get("link"), answer.status) == (103, "</a>", 200)


async def test_pipelined_requests_are_answered_in_order(system):
    """Requests sent together come back one after the other, also those that the gateway answers itself."""
    upstream = await system.upstream(name="u")
    routes = """
        - {id: a, uri: "lb://app", metadata: {public: true}, predicates: [Path=/a/**]}
"""
    gateway = await system.gateway(routes, {"app": [upstream.address]})
    wire = await system.connect(gateway)
    wire.send(
        b"".join(
            b"POST %b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n" % path
            for path in (b"/a/1", b"/none", b"/a/2", b"/a/3", b"/none")
        )
    )

    statuses = [(await wire.answer()).status for _ in range(5)]

    assert statuses == [200, 404, 200, 200, 404]
    assert [(r.target, r.body) for r in upstream.requests] == [("/a/1", b"hi"), ("/a/2", b"hi"), ("/a/3", b"hi")]


async def test_thousands_of_pipelined_refusals(system):
    """Many requests that are refused at once don't exhaust the stack."""
    gateway = await system.gateway("""
        - {id: a, uri: "lb://app", predicates: [Path=/a/**]}
""")
    wire = await system.connect(gateway)
    wire.send((GET + b"\r\n") * 3000)

    statuses = {(await wire.answer()).status for _ in range(3000)}

    assert {404} == statuses


async def test_hop_by_hop_headers_end_here(system):
    """What belongs to one connection isn't passed on, in either direction, also what Connection names."""
    behave = says(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\n"
        b"Proxy-Authenticate: x\r\nTrailer: y\r\nX-Kept: 1\r\n\r\n"
    )
    upstream = await system.upstream(behave)
    gateway = await system.simple(upstream)

    answer = await system.ask(
        gateway,
        "/",
        "Connection: keep-alive, X-Hop, TE",
        "X-Hop: 1",
        "TE: trailers",
        "Keep-Alive: 5",
        "Proxy-Authorization: x",
        "Proxy-Connection: x",
        "Upgrade: h2c",
        "HTTP2-Settings: x",
        "X-Stay: 1",
    )

    names = {name for name, _ in upstream.requests[0].headers}
    assert names == {
        "host",
        "x-stay",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "traceparent",
        "x-request-deadline-ms",
    }
    assert {"content-length", "x-kept"} == {name for name, _ in answer.headers}


async def test_identity_from_outside_is_dropped(system):
    """No spelling of an identity header gets in; the gateway's own tells the user of the token."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, metadata="scope: orders:read")

    await system.ask(
        gateway,
        "/",
        "Authorization: Bearer good",
        "X-User-Id: root",
        "x-user-roles: admin",
        "X_User_Id: root",
        "X-USER-EMAIL: a@b",
        "X-Principal: root",
        "X-Principal-Name: root",
        "X-Auth-Request-User: root",
        "X-Internal-Token: t",
        "X-Session-Id: s",
        "Remote-User: root",
        "X-Forwarded-User: root",
        "X-Forwarded-Anything: root",
        "X-User: root",
        "X-HTTP-Method-Override: root",
    )

    received = upstream.requests[0]
    assert received.all("x-user-id") == ["ada"]
    assert "root" not in json.dumps(received.headers)
    assert not any(
        name.startswith(("x-auth", "x-internal", "x-session", "x-principal", "x_")) for name, _ in received.headers
    )
    assert received.get("authorization") == "Bearer good"


async def test_forwarding_headers_are_written_afresh(system):
    """What an unknown peer says about where it comes from is replaced by what we see."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)

    await system.ask(
        gateway,
        "/",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Proto: https",
        "Forwarded: for=1.2.3.4",
        "X-Real-IP: 1.2.3.4",
    )

    received = upstream.requests[0]
    assert received.all("x-forwarded-for") == ["127.0.0.1"]
    assert received.all("x-forwarded-proto") == ["http"]
    assert received.all("x-forwarded-host") == ["shop.test"]
    assert [str(gateway.port)] == received.all("x-forwarded-port")
    assert received.get("forwarded") is None
    assert received.get("x-real-ip") is None
    assert upstream.address == received.get("host")


async def test_a_trusted_proxy_is_believed(system):
    """Behind a trusted proxy the chain is continued."""
    upstream = await system.upstream()
    routes = """
        - {id: a, uri: "lb://app", metadata: {public: true}, predicates: [Path=/**]}
      trusted-proxies: 127\\.0\\.0\\.1
"""
    gateway = await system.gateway(routes, {"app": [upstream.address]})

    await system.ask(
        gateway, "/", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example"
    )

    received = upstream.requests[0]
    assert received.all("x-forwarded-for") == ["1.2.3.4, 127.0.0.1"]
    assert received.all("x-forwarded-proto") == ["https"]
    assert received.all("x-forwarded-host") == ["shop.example"]


async def test_a_trace_is_continued_or_begun(system):
    """A well-formed traceparent goes on; a missing or malformed one is replaced by a new one."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    given = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    await system.ask(gateway, "/", f"traceparent: {given}")
    await system.ask(gateway, "/", "traceparent: nonsense")
    await system.ask(gateway, "/")

    kept, replaced, made = (request.all("traceparent") for request in upstream.requests)
    assert [given] == kept
    assert len(replaced) == len(made) == 1
    assert len(made[0]) == len(given)
    assert replaced != made


@pytest.mark.parametrize(("given", "sent"), [(None, 10000), ("500", 500), ("99999", 10000), ("soon", 10000)])
async def test_the_deadline_is_set_and_clamped(system, given, sent):
    """Upstreams are told how long the answer is worth something: at most the gateway's own time-out."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)

    await system.ask(gateway, "/", *([f"X-Request-Deadline-Ms: {given}"] if given else []))

    assert [str(sent)] == upstream.requests[0].all("x-request-deadline-ms")


async def test_continue_is_sent_once_admitted(system):
    """A client that waits for 100 Continue gets it from the gateway, and the upstream isn't asked for it."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")

    interim = await wire.answer()
    wire.send(b"hi")
    answer = await wire.answer()

    assert (interim.status, answer.status) == (100, 200)
    assert (upstream.requests[0].get("expect"), upstream.requests[0].body) == (None, b"hi")


async def test_a_refused_expectation_ends_the_connection(system):
    """A refused client that waits for 100 Continue may or may not send its body, so the connection can't go on."""
    gateway = await system.gateway("""
        - {id: a, uri: "lb://app", predicates: [Path=/a/**]}
""")
    wire = await system.connect(gateway)
    wire.send(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n")

    answer = await wire.answer()

    assert (answer.status, answer.get("connection")) == (404, "close")
    assert await wire.ended() == b""


async def test_a_refused_request_with_a_small_body_keeps_the_connection(system):
    """The body of a refused request is read away, and the next request is understood."""
    upstream = await system.upstream()
    routes = """
        - {id: a, uri: "lb://app", metadata: {public: true}, predicates: [Path=/a]}
"""
    gateway = await system.gateway(routes, {"app": [upstream.address]})
    wire = await system.connect(gateway)
    wire.send(POST + b"Content-Length: 10\r\n\r\nGET /x")
    refused = await wire.answer()
    wire.send(b" HTT" + b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
    answer = await wire.answer()

    assert (refused.status, answer.status) == (404, 200)


async def test_large_bodies_stream_both_ways(system):
    """Bodies far larger than any buffer pass in pieces, in both directions, while neither side is whole."""
    size = 6 * 1024 * 1024
    piece = bytes(range(256)) * 256

    async def echo(upstream, request, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            data = await reader.read(65536)
            left -= len(data)
            writer.write(data)
            await writer.drain()

    upstream = await system.upstream(echo, read_body=False)
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)

    async def send():
        wire.send(POST + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // len(piece)):
            wire.send(piece)
            await wire.writer.drain()

    sending = asyncio.ensure_future(send())
    answer = await wire.answer()
    await sending

    assert piece * (size // len(piece)) == answer.body
    assert gateway.statistics().upstream.idle == 1


async def test_a_slow_reader_slows_the_upstream(system):
    """An upstream that sends without end is held back while the client doesn't read."""
    sent = 0
    stuck = asyncio.Event()

    async def flood(upstream, request, reader, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            try:
                async with asyncio.timeout(0.3):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                return False
            sent += 65536

    upstream = await system.upstream(flood)
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")

    await asyncio.wait_for(stuck.wait(), 5)

    assert sent < 50_000_000


async def test_a_slow_upstream_slows_the_client(system):
    """A client that sends without end is held back while the upstream doesn't read."""
    release = asyncio.Event()

    async def deaf(upstream, request, reader, writer):
        await release.wait()
        return False

    upstream = await system.upstream(deaf, read_body=False)
    gateway = await system.simple(upstream, limits=Limits(body=2**30))
    wire = await system.connect(gateway)
    wire.send(POST + b"Content-Length: 1000000000\r\n\r\n")

    with pytest.raises(TimeoutError):
        for _ in range(1000):
            wire.send(b"x" * 2**20)
            async with asyncio.timeout(0.3):
                await wire.writer.drain()
    release.set()


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
BODIES = {
    "length": b"Content-Length: %d\r\n\r\n" % len(GET + b"\r\n") + GET + b"\r\n",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(GET + b"\r\n") + GET + b"\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_an_offer_of_http_2_is_ignored(system, body):
    """Requests that offer h2c are answered over HTTP/1.1, and pass with their bodies but without the offer."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)

    wire.send((POST + OFFER + body + GET + OFFER + b"\r\n") * 2)
    answers = [await wire.answer() for _ in range(4)]

    assert [answer.status for answer in answers] == [200] * 4
    assert [(each.method, each.body) for each in upstream.requests] == [("POST", GET + b"\r\n"), ("GET", b"")] * 2
    for request in upstream.requests:
        assert not {"connection", "upgrade", "http2-settings"} & {name for name, _ in request.headers}


async def test_too_large_a_body_beside_an_offer_of_http_2(system):
    """The limit of the body holds, and nothing of the body is taken for a request."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, limits=Limits(body=10))
    wire = await system.connect(gateway)

    wire.send(POST + OFFER + BODIES["length"])
    answer = await wire.answer()

    assert answer.status == 413
    assert b"HTTP/1.1" not in await wire.ended()
    assert upstream.requests == []


async def test_too_large_a_body_is_one_refused_request(system, monkeypatch):
    """Its bytes may be in the same read: they are no second request that is refused, counted and logged."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, limits=Limits(body=10))
    outcomes = []
    monkeypatch.setattr(gateway, "record", outcomes.append)
    wire = await system.connect(gateway)

    wire.send(POST + BODIES["length"])
    answer = await wire.answer()
    assert b"HTTP/1.1" not in await wire.ended()

    assert answer.status == 413
    assert [(outcome.head.method, outcome.status) for outcome in outcomes] == [(b"POST", 413)]


async def test_every_connection_field_names_what_ends_here(system):
    """What one of several Connection lines names isn't passed on."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)

    await system.ask(gateway, "/", "Connection: X-Mine, Upgrade", "X-Mine: a", "X-Not: b", "Connection: keep-alive")

    assert (upstream.requests[0].get("x-mine"), upstream.requests[0].get("x-not")) == (None, "b")


async def test_websocket_is_said_to_be_missing(system):
    """An upgrade to WebSocket is refused openly, not answered as if it were a GET."""
    gateway = await system.gateway("""
        - {id: a, uri: "lb://app", predicates: [Path=/a/**]}
""")

    answer = await system.ask(gateway, "/a/b", "Connection: Upgrade", "Upgrade: websocket")

    assert (answer.status, answer.problem["type"]) == (501, "urn:backstay:problem:not-implemented")
