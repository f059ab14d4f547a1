"""What a client sees when something behind or before the gateway breaks, and what it does to the others."""

import asyncio

import pytest

from backstay.discovery import Instance, StaticRegistry
from backstay.gateway import DenyList
from backstay.http import Limits
from backstay.testing import eventually

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: shop.test\r\n"
POST = b"POST / HTTP/1.1\r\nHost: shop.test\r\n"
TYPE = "urn:backstay:problem:"


async def hang(upstream, request, reader, writer):
    await reader.read()
    return False


async def hang_up(upstream, request, reader, writer):
    return False


def says_and_hangs_up(data):
    async def behave(upstream, request, reader, writer):
        writer.write(data)
        await writer.drain()
        return False

    return behave


async def test_a_problem_says_everything(system):
    """Own errors are problem+json with type, title, status, detail, instance and the trace's id."""
    gateway = await system.gateway("""
        - {id: a, uri: "lb://app", predicates: [Path=/a/**]}
""")

    answer = await system.ask(
        gateway, "/none?secret=1", "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    )

    assert answer.problem == {
        "type": TYPE + "not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "there is no route for GET /none",
        "instance": "/none",
        "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
    }


async def test_no_instance_is_a_503(system):
    """Nobody registered: 503 with Retry-After."""
    gateway = await system.gateway("""
        - {id: a, uri: "lb://app", metadata: {public: true}, predicates: [Path=/**]}
""")

    answer = await system.ask(gateway)

    assert (answer.status, answer.problem["type"], answer.get("retry-after")) == (503, TYPE + "no-instance", "1")


class Fixed(StaticRegistry):
    """A registry with one instance, whatever it is told; a dishonest one hands it out whatever that takes."""

    def __init__(self, instance, *, honest):
        self.instance, self.honest = instance, honest
        super().__init__({})

    def replace(self, apps):
        super().replace({"app": [self.instance]})

    def choose(self, app):
        return super().choose(app) if self.honest else self.instance


@pytest.mark.parametrize("honest", [True, False])
async def test_an_instance_that_takes_tls_only_is_never_spoken_to_in_plain(system, honest):
    """503 with the reason; nothing is sent, so no token leaves in clear."""
    upstream = await system.upstream()
    system.registry = Fixed(Instance("app", "app-tls", "127.0.0.1", upstream.port, secure=True), honest=honest)
    gateway = await system.simple(upstream, instance_wait=0.1)

    answer = await system.ask(gateway, "/", "Authorization: Bearer secret")

    assert (answer.status, answer.problem["type"]) == (503, TYPE + "instance-unreachable")
    assert "takes TLS only" in answer.problem["detail"]
    assert upstream.requests == []


@pytest.mark.parametrize("before", ["none", "refused"])
async def test_a_request_waits_a_moment_for_an_instance(system, before):
    """While the only instance is started again a request isn't refused: it goes to the one that comes."""
    routes = """
        - {id: a, uri: "lb://app", metadata: {public: true}, predicates: [Path=/**]}
"""
    known = {"app": [await system.refused_address()]} if before == "refused" else {}
    gateway = await system.gateway(routes, known, instance_wait=30.0)
    good = await system.upstream()

    asked = asyncio.create_task(system.ask(gateway, "/", method="POST", body=b"hi"))
    await eventually(lambda: gateway.metrics.waiting == 1)
    system.registry.replace({"app": [good.address]})

    assert ((await asked).status, gateway.metrics.waiting) == (200, 0)


async def test_a_refused_connection_goes_to_the_next_instance(system):
    """An instance that refuses is left out for a while, and the client doesn't notice, not even with a POST."""
    good = await system.upstream()
    bad = await system.refused_address()
    routes = """
        - {id: a, uri: "lb://app", metadata: {public: true}, predicates: [Path=/**]}
"""
    gateway = await system.gateway(routes, {"app": [bad, good.address]})

    answers = [await system.ask(gateway, "/", method="POST", body=b"hi") for _ in range(4)]

    assert {(answer.status, answer.body) for answer in answers} == {(200, b"upstream")}
    assert gateway.statistics().ejections == 1


async def test_all_instances_refuse(system):
    """If everybody refuses it is a 503: nothing was sent, so the client may try again."""
    gateway = await system.gateway(
        """
        - {id: a, uri: "lb://app", metadata: {public: true}, predicates: [Path=/**]}
""",
        {"app": [await system.refused_address(), await system.refused_address()]},
    )

    answer = await system.ask(gateway)

    assert (answer.status, answer.get("retry-after")) == (503, "1")


async def test_a_fixed_address_that_refuses_is_a_502(system):
    """A route to an address of its own has no other instance."""
    gateway = await system.gateway(f"""
        - {{id: a, uri: "http://{await system.refused_address()}", metadata: {{public: true}}, predicates: [Path=/**]}}
""")

    assert (await system.ask(gateway)).status == 502


BROKEN = {
    "hangs up": b"",
    "noise": b"garbage\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another protocol": b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
async def test_a_broken_answer_is_a_502(system, data):
    """An upstream that doesn't speak HTTP costs its request a 502, and the client's connection goes on."""
    upstream = await system.upstream(says_and_hangs_up(data))
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)

    for _ in range(2):
        wire.send(GET + b"\r\n")
        answer = await wire.answer()
        assert (answer.status, answer.problem["type"]) == (502, TYPE + "bad-gateway")


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nnonsense",
    ],
    ids=["length", "chunked", "bad chunk"],
)
async def test_half_an_answer_is_never_taken_for_a_whole_one(system, data):
    """When an answer breaks off, the client's connection breaks off too."""
    upstream = await system.upstream(says_and_hangs_up(data))
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")

    rest = await wire.ended()

    assert not rest.endswith(b"0\r\n\r\n")
    assert b"problem" not in rest


class Stale:
    """Answers the first request of its first connection and hangs up on the second."""

    def __init__(self):
        self.first = True

    async def __call__(self, upstream, request, reader, writer):
        if upstream.connections == 1 and len(upstream.requests) == 2:
            return False
        writer.write(OK)
        return True


async def ask_twice(system, second, **options):
    upstream = await system.upstream(Stale())
    gateway = await system.simple(upstream, **options)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")
    await wire.answer()
    wire.send(second)
    return upstream, gateway, await wire.answer()


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET + b"\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        POST + b"Idempotency-Key: k\r\nContent-Length: 2\r\n\r\nhi",
    ],
    ids=["GET", "PUT", "chunked PUT", "POST with a key"],
)
async def test_a_dead_kept_connection_is_replaced(system, request_bytes):
    """A harmless request that a dying kept connection swallowed is sent once more, whole."""
    upstream, gateway, answer = await ask_twice(system, request_bytes)

    assert (answer.status, gateway.statistics().replays) == (200, 1)
    assert upstream.requests[1].body == upstream.requests[2].body


async def test_a_post_is_never_sent_twice(system):
    """A POST without a key may have had its effect: the client is told, not helped."""
    upstream, gateway, answer = await ask_twice(system, POST + b"Content-Length: 2\r\n\r\nhi")

    assert (answer.status, len(upstream.requests), gateway.statistics().replays) == (502, 2, 0)


@pytest.mark.parametrize("drop", ["RemoveRequestHeader=Idempotency-Key", ""], ids=["by a filter", "by Connection"])
async def test_a_key_that_the_service_never_sees_allows_no_repetition(system, drop):
    """What is sent decides: a POST whose key is taken off on the way is sent once."""
    named = b"" if drop else b"Connection: idempotency-key\r\n"
    post = POST + b"Idempotency-Key: k\r\n" + named + b"Content-Length: 2\r\n\r\nhi"
    upstream, gateway, answer = await ask_twice(system, post, filters=f"'{drop}'" if drop else "")

    assert (answer.status, len(upstream.requests), gateway.statistics().replays) == (502, 2, 0)
    assert upstream.requests[1].get("idempotency-key") is None


async def test_a_key_that_the_route_adds_allows_one(system):
    """A key that only the service gets makes the repetition harmless."""
    upstream, gateway, answer = await ask_twice(
        system, POST + b"Content-Length: 2\r\n\r\nhi", filters="'AddRequestHeader=Idempotency-Key, fixed'"
    )

    assert (answer.status, len(upstream.requests), gateway.statistics().replays) == (200, 3, 1)


async def test_a_fresh_connection_is_not_replayed(system):
    """An upstream that hangs up on every request is asked once, not again and again."""
    upstream = await system.upstream(hang_up)
    gateway = await system.simple(upstream)

    assert (await system.ask(gateway)).status == 502
    assert len(upstream.requests) == 1


async def test_silence_is_a_504(system):
    """No first byte within the response time-out: 504, and the upstream sees the end of it."""
    upstream = await system.upstream(hang)
    gateway = await system.simple(upstream, metadata="public: true, response-timeout: 50")

    answer = await system.ask(gateway)

    assert (answer.status, answer.problem["type"]) == (504, TYPE + "gateway-timeout")
    await asyncio.wait_for(upstream.closed.wait(), 5)


async def test_the_clients_deadline_counts_too(system):
    """A client that gives a request 50 ms gets its 504 then, not after the gateway's own time."""
    upstream = await system.upstream(hang)
    gateway = await system.simple(upstream)

    assert (await system.ask(gateway, "/", "X-Request-Deadline-Ms: 50")).status == 504
    assert (await system.ask(gateway, "/", "X-Request-Deadline-Ms: 0")).status == 504
    assert (await system.ask(gateway, "/", "X-Request-Deadline-Ms: -20")).status == 504
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("given", "status", "passed"),
    [
        ("49", 504, None),
        ("50", 200, "50"),
        ("1500", 200, "1500"),
        ("2001", 200, "2000"),
        ("999999999999999999", 200, "2000"),
        ("1.5", 200, None),
    ],
)
async def test_a_deadline_from_outside_has_a_floor_and_a_ceiling(system, given, status, passed):
    """Too short a deadline costs no service a call; too long a one is lowered; what is no number is none."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, metadata="public: true, response-timeout: -1", deadline_ceiling=2.0)

    answer = await system.ask(gateway, "/", f"X-Request-Deadline-Ms: {given}")

    assert answer.status == status
    seen = [request.get("x-request-deadline-ms") for request in upstream.requests]
    assert seen == ([passed] if status == 200 else [])


async def test_an_answer_that_stands_still_is_cut(system):
    """Half an answer and then silence ends the exchange."""

    async def half(upstream, request, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await reader.read()
        return False

    upstream = await system.upstream(half)
    gateway = await system.simple(upstream, idle_timeout=0.05)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")

    assert (await wire.ended()).endswith(b"half")


async def test_an_answer_may_trickle(system):
    """An answer that goes on, however slowly, isn't cut by the idle time-out, but by the total one."""

    async def trickle(upstream, request, reader, writer):
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1\r\nx\r\n")
            await writer.drain()
            await asyncio.sleep(0.02)

    upstream = await system.upstream(trickle)
    gateway = await system.simple(upstream, idle_timeout=0.2, total_timeout=0.6)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")

    assert (await wire.ended()).count(b"x") > 12


async def test_a_client_that_leaves_takes_its_request_along(system):
    """When the client disconnects, the upstream's connection is closed and nothing is left in flight."""
    arrived = asyncio.Event()

    async def wait(upstream, request, reader, writer):
        arrived.set()
        return await hang(upstream, request, reader, writer)

    upstream = await system.upstream(wait)
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")
    await arrived.wait()
    wire.close()

    await asyncio.wait_for(upstream.closed.wait(), 5)
    assert gateway.statistics().in_flight == 0
    assert gateway.metrics.routes["all"].statuses == {499: 1}


async def test_a_slow_head_is_closed(system):
    """Slowloris: a head that never ends gets a 408 and the end, an idle connection only the end."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, head_timeout=0.1, keep_alive=0.1)
    slow, silent, kept = [await system.connect(gateway) for _ in range(3)]
    kept.send(GET + b"\r\n")
    await kept.answer()

    async def drip():
        for byte in GET * 100:
            slow.send(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.ensure_future(drip())
    answer = await slow.answer()
    dripping.cancel()

    assert answer.status == 408
    assert await silent.ended() == b""
    assert await kept.ended() == b""
    assert upstream.connections == 1


async def test_a_slow_body_is_a_408(system):
    """A body that stands still is the client's fault, and the upstream is let go."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, body_timeout=0.05)
    wire = await system.connect(gateway)
    wire.send(POST + b"Content-Length: 10\r\n\r\nhi")

    answer = await wire.answer()

    assert (answer.status, answer.problem["type"]) == (408, TYPE + "request-timeout")
    await asyncio.wait_for(upstream.closed.wait(), 5)


CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"a\r\n0123456789\r\n" * 20 + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (POST + b"Content-Length: 101\r\n\r\n", 413),
        (POST + b"Content-Length: 101\r\n\r\n" + b"x" * 101, 413),
        (CHUNKED, 413),
        (GET + b"X: " + b"x" * 40_000 + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: a\r\n" % i for i in range(101)) + b"\r\n", 431),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    ],
    ids=["length", "length with its body", "chunked", "head", "fields", "target"],
)
async def test_everything_has_a_limit(system, data, status):
    """Each limit has its status as a problem, which the client can read although it is still sending."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, filters="RequestSize=100B")
    wire = await system.connect(gateway)
    wire.send(data)

    answer = await wire.answer()

    assert (answer.status, answer.problem["status"]) == (status, status)


async def test_a_large_refused_body_doesnt_hide_the_answer(system):
    """A client that writes megabytes before it reads still gets its 413."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, limits=Limits(body=1000))
    wire = await system.connect(gateway)
    wire.send(POST + b"Content-Length: 5000000\r\n\r\n" + b"x" * 5_000_000)

    answer = await wire.answer()

    assert (answer.status, answer.get("connection")) == (413, "close")


async def test_an_early_answer_to_an_unread_body(system):
    """An upstream may answer before it has read the body; the answer arrives, and the connection isn't reused."""

    async def early(upstream, request, reader, writer):
        writer.write(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        await reader.read()
        return False

    upstream = await system.upstream(early, read_body=False)
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)

    answer = await wire.answer()

    assert (answer.status, answer.body) == (403, b"no")
    assert await wire.ended() == b""
    assert gateway.statistics().upstream.idle == 0


SMUGGLING = {
    "TE and CL": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two CL": POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "odd TE": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "folded": GET + b"X: a\r\n b\r\n\r\n",
    "space before colon": POST + b"Content-Length : 5\r\n\r\nhello",
    "bare LF": b"GET / HTTP/1.1\nHost: a\n\n",
    "two hosts": GET + b"Host: other\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "other target": b"GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "dot segments": b"GET /a/../admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded dot segments": b"GET /a/%2e%2e/admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded slash": b"GET /a%2fadmin HTTP/1.1\r\nHost: a\r\n\r\n",
    "empty segment": b"GET //admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "path parameter": b"GET /a;x=/admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "backslash": b"GET /a\\admin HTTP/1.1\r\nHost: a\r\n\r\n",
    "encoded NUL": b"GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "half an escape": b"GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n",
    "not UTF-8": b"GET /a%ff HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("data", SMUGGLING.values(), ids=SMUGGLING.keys())
async def test_nothing_ambiguous_passes(system, data):
    """What two servers could understand differently never reaches an upstream, and nothing after it does."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(data)

    answer = await wire.answer()

    assert answer.status in (400, 501)
    assert answer.problem["type"].startswith(TYPE)
    assert upstream.requests == []


async def test_bad_chunks_reach_nobody_whole(system):
    """A body whose chunks turn out wrong is refused, and the upstream never sees the end of the request."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await eventually(lambda: upstream.connections == 1)
    wire.send(b"nonsense\r\n")

    assert (await wire.answer()).status == 400
    await asyncio.wait_for(upstream.closed.wait(), 5)
    assert upstream.requests == []


async def test_a_bad_request_behind_a_good_one(system):
    """The good one is answered first."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n" + b"nonsense\r\n\r\n")

    assert [(await wire.answer()).status for _ in range(2)] == [200, 501]
    assert await wire.ended() == b""


async def test_tokens(system):
    """No token, a bad one, a revoked session, a missing scope, and no keys yet are told apart."""
    upstream = await system.upstream()
    denied = DenyList(now=lambda: 0.0)
    gateway = await system.simple(upstream, metadata="scope: orders:read", denied=denied)
    system.tokens.add("poor", "bob")

    missing = await system.ask(gateway)
    invalid = await system.ask(gateway, "/", "Authorization: Bearer bad")
    basic = await system.ask(gateway, "/", "Authorization: Basic Z29vZA==")
    scope = await system.ask(gateway, "/", "Authorization: Bearer poor")
    good = await system.ask(gateway, "/", "authorization: bearer good")
    denied.add("s1", 100.0)
    revoked = await system.ask(gateway, "/", "Authorization: Bearer good")
    system.tokens.available = False
    unknown = await system.ask(gateway, "/", "Authorization: Bearer good")

    assert (missing.status, missing.get("www-authenticate")) == (401, "Bearer")
    assert (invalid.status, invalid.get("www-authenticate")) == (401, 'Bearer error="invalid_token"')
    assert basic.status == 401
    assert (scope.status, scope.get("www-authenticate")) == (
        403,
        'Bearer error="insufficient_scope", scope="orders:read"',
    )
    assert good.status == 200
    assert (revoked.status, revoked.get("www-authenticate")) == (401, 'Bearer error="invalid_token"')
    assert (unknown.status, unknown.get("retry-after")) == (503, "1")
    assert len(upstream.requests) == 1


async def test_a_flood_of_bad_tokens_is_stopped(system):
    """Guessing tokens costs signature checks, so an address gets only so many."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, metadata="scope: orders:read")
    wire = await system.connect(gateway)

    statuses = []
    for i in range(70):
        wire.send(GET + b"Authorization: Bearer bad%d\r\n\r\n" % i)
        statuses.append((await wire.answer()).status)

    assert statuses[:50] == [401] * 50
    assert statuses[-1] == 429
    assert system.tokens.asked < 60


async def behind_a_proxy(system, **options):
    """A gateway whose clients come through a proxy on this machine."""
    upstream = await system.upstream()
    routes = f"""
        - {{id: guarded, uri: "http://{upstream.address}", predicates: [Path=/guarded]}}
        - {{id: open, uri: "http://{upstream.address}", metadata: {{public: true}}, predicates: [Path=/open]}}
"""
    return await system.gateway(routes + "      trusted-proxies: '127\\.0\\.0\\.1'\n", **options)


async def statuses(wire, count, target, *lines):
    found = []
    for _ in range(count):
        wire.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode())
        found.append((await wire.answer()).status)
    return found


async def test_a_greedy_customer_behind_a_proxy_harms_no_other(system):
    """500 requests without a token are few 401 and many 429; another customer of the same proxy isn't touched."""
    gateway = await behind_a_proxy(system)
    wire = await system.connect(gateway)

    greedy = await statuses(wire, 500, "/guarded", "X-Forwarded-For: 203.0.113.5")
    other = await statuses(wire, 5, "/guarded", "X-Forwarded-For: 203.0.113.6", "Authorization: Bearer good")
    itself = await statuses(wire, 60, "/guarded")

    assert set(greedy) == {401, 429}
    assert 50 <= greedy.count(401) < 150
    assert other == [200] * 5
    assert itself == [401] * 60


@pytest.mark.parametrize("target", ["/open", "/guarded", "/nowhere"])
async def test_requests_of_an_address_are_limited_before_anything_else(system, target):
    """Whatever it asks for, and whatever its tokens: an address has its share; the proxy itself has all it wants."""
    gateway = await behind_a_proxy(system, address_rate=1.0, address_burst=3.0)
    wire = await system.connect(gateway)
    token = "Authorization: Bearer good"
    expected = 404 if target == "/nowhere" else 200

    greedy = await statuses(wire, 6, target, "X-Forwarded-For: 1.1.1.1, 203.0.113.5", token)
    other = await statuses(wire, 3, target, "X-Forwarded-For: 203.0.113.6", token)
    itself = await statuses(wire, 10, target, token)

    assert greedy[:3] == [expected] * 3
    assert greedy[-1] == 429
    assert other == [expected] * 3
    assert itself == [expected] * 10
    assert gateway.guard.addresses.statistics().refused == greedy.count(429)


async def test_the_limit_is_per_caller(system):
    """Over the limit: 429 with Retry-After and the limit's headers; another user isn't touched."""
    upstream = await system.upstream()
    limiter = (
        "{name: RequestRateLimiter, args: {redis-rate-limiter.replenishRate: 1, redis-rate-limiter.burstCapacity: 2}}"
    )
    gateway = await system.simple(upstream, metadata="scope: orders:read", filters=limiter)
    system.tokens.add("other", "bob", "orders:read")

    answers = [await system.ask(gateway, "/", "Authorization: Bearer good") for _ in range(3)]
    other = await system.ask(gateway, "/", "Authorization: Bearer other")

    assert [answer.status for answer in (*answers, other)] == [200, 200, 429, 200]
    assert [answer.get("x-ratelimit-remaining") for answer in answers] == ["1", "0", "0"]
    limited = answers[2]
    assert (limited.get("retry-after"), limited.problem["type"]) == ("1", TYPE + "too-many-requests")
    assert {answer.get("x-ratelimit-burst-capacity") for answer in answers} == {"2"}
    assert {answer.get("x-ratelimit-replenish-rate") for answer in answers} == {"1"}
    assert gateway.metrics.routes["all"].statuses == {200: 3, 429: 1}


async def test_stopping_finishes_what_was_begun(system):
    """At the end: no new connections, idle ones closed, the request in flight answered with Connection: close."""
    begun, release = asyncio.Event(), asyncio.Event()

    async def slow(upstream, request, reader, writer):
        begun.set()
        await release.wait()
        writer.write(OK)

    upstream = await system.upstream(slow)
    gateway = await system.simple(upstream)
    idle, busy = await system.connect(gateway), await system.connect(gateway)
    busy.send(GET + b"\r\n")
    await begun.wait()

    stopping = asyncio.ensure_future(gateway.__aexit__(None, None, None))
    assert await idle.ended() == b""
    with pytest.raises(ConnectionError):
        await system.connect(gateway)
    assert not stopping.done()
    release.set()
    answer = await busy.answer()
    await asyncio.wait_for(stopping, 5)

    assert (answer.status, answer.get("connection")) == (200, "close")


async def test_stopping_doesnt_wait_for_ever(system):
    """What isn't done when the drain time is over is cut."""
    upstream = await system.upstream(hang)
    gateway = await system.simple(upstream, drain_timeout=0.05)
    wire = await system.connect(gateway)
    wire.send(GET + b"\r\n")
    await eventually(lambda: upstream.requests)

    await asyncio.wait_for(gateway.__aexit__(None, None, None), 5)

    assert await wire.ended() == b""


async def test_only_so_many_clients(system):
    """Connections beyond the limit are closed at once, and the others don't notice."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, max_clients=1)
    first = await system.connect(gateway)
    first.send(GET + b"\r\n")
    assert (await first.answer()).status == 200

    second = await system.connect(gateway)
    assert await second.ended() == b""
    first.send(GET + b"\r\n")

    assert (await first.answer()).status == 200
    assert gateway.statistics().turned_away == 1
