"""The gateway's process: keys from auth, revocations from the broker, its own endpoints, and its end."""

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from backstay.discovery import RegistryServer, StaticRegistry
from backstay.errors import ConfigError
from backstay.http import HttpClient, HttpReply, HttpServer
from backstay.ids import uuid7
from backstay.messaging import Envelope, MemoryBroker
from backstay.testing import eventually
from backstay.testing.issuer import TokenIssuer
from shop.gateway.main import build, settings

NOBODY = "http://127.0.0.1:1/.well-known/jwks.json"


class Upstream:
    """Auth and orders in one: serves the key set, and tells what it was asked."""

    def __init__(self, issuer):
        self.issuer = issuer
        self.requests = []
        self.status = 200

    def __call__(self, request):
        if request.path == "/.well-known/jwks.json":
            return HttpReply(200, self.issuer.jwks, content_type="application/json")
        self.requests.append(request)
        return HttpReply(self.status, b'{"items": []}', content_type="application/json")


class Shop:
    """A running gateway with one service behind it."""

    def __init__(self, running, upstream, issuer, broker, http):
        self.running, self.upstream, self.issuer, self.broker, self.http = running, upstream, issuer, broker, http

    async def get(self, path, token=None):
        headers = [("authorization", f"Bearer {token}")] if token else []
        return await self.http.request("127.0.0.1", self.running.gateway.port, "GET", path, headers=headers, timeout=5)

    async def management(self, path):
        response = await self.http.request("127.0.0.1", self.running.management.port, "GET", path, timeout=5)
        return response.status, response.body.decode()

    async def revoke(self, sid, **more):
        await publish(self.broker, "session.revoked", {"sid": str(sid), **more})


async def publish(broker, kind, data):
    now = datetime.now(UTC)
    body = {
        "user_id": str(uuid4()),
        "until": (now + timedelta(minutes=5)).isoformat(),
        "reason": "logout",
        "at": now.isoformat(),
    }
    record = Envelope.record_for(
        topic="users", key="u", id=uuid7(), type=kind, source="/service/auth", data=json.dumps(body | data).encode()
    )
    async with broker.producer() as producer:
        assert await producer.publish([record]) == [None]


@asynccontextmanager
async def shop(*, environ=None, keys=True):
    issuer, broker = TokenIssuer(audience="shop"), MemoryBroker()
    await broker.create_topics({"users": 2})
    upstream = Upstream(issuer)
    async with HttpServer(upstream) as server, HttpClient() as http:
        address = [f"127.0.0.1:{server.port}"]
        registry = StaticRegistry({"orders": address, "catalog": address, "auth": address})
        jwks = f"http://127.0.0.1:{server.port if keys else 1}/.well-known/jwks.json"
        told = {"GATEWAY_PORT": "0", "TOKEN_ISSUER": issuer.issuer, "JWKS_URL": jwks, **(environ or {})}
        found = settings(told)
        process = build(found, registry=registry, broker=broker)
        async with process.running() as running:
            yield Shop(running, upstream, issuer, broker, http)


async def ready(it):
    token = it.issuer.token()

    async def served():
        return (await it.get("/api/v1/orders", token)).status == 200

    await eventually(served)
    it.upstream.requests.clear()


async def test_a_token_of_auth_opens_the_door():
    """The keys come from auth by themselves; a good token passes, others don't, and public routes need none."""
    async with shop() as it:
        await ready(it)
        answers = [
            await it.get("/api/v1/orders", it.issuer.token("ada")),
            await it.get("/api/v1/orders"),
            await it.get("/api/v1/orders", it.issuer.token(exp=1)),
            await it.get("/api/v1/orders", it.issuer.token(aud="other")),
            await it.get("/api/v1/orders", TokenIssuer(audience="shop").token()),
            await it.get("/"),
            await it.get("/api/v1/products"),
            await it.get("/api/v1/analytics/revenue", it.issuer.token(scope="analytics:read")),
        ]

    assert [answer.status for answer in answers] == [200, 401, 401, 401, 401, 404, 200, 503]
    assert [request.headers.get("x-user-id") for request in it.upstream.requests] == ["ada", None]


async def test_without_keys_it_is_a_503_not_a_401():
    """While auth can't be reached nobody is told that their token is bad; public routes work."""
    async with shop(keys=False) as it:
        answer = await it.get("/api/v1/orders", it.issuer.token())
        products = await it.get("/api/v1/products")
        status, body = await it.management("/health/ready")

    assert (answer.status, answer.headers.get("retry-after"), products.status) == (503, "1", 200)
    assert (status, json.loads(body)["components"]["keys"]["status"]) == (200, "DOWN")


async def test_a_service_that_fails_is_answered_for():
    """The breaker of its name opens by the shop's own configuration; another service's stays closed; all see it."""
    async with shop(environ={"SERVICE_MIN_CALLS": "4", "SERVICE_WAIT_OPEN": "30"}) as it:
        await ready(it)
        it.upstream.status = 500
        token = it.issuer.token()
        seen = [await it.get("/api/v1/orders", token) for _ in range(5)]
        _, shown = await it.management("/actuator/circuitbreakers")
        _, metrics = await it.management("/metrics")

    assert [answer.status for answer in seen[:3]] == [500, 500, 500]
    assert seen[-1].status == 503
    assert json.loads(seen[-1].body)["type"] == "urn:backstay:problem:circuit-open"
    states = {name: breaker["state"] for name, breaker in json.loads(shown)["circuitBreakers"].items()}
    assert (states["orders"], states["catalog"]) == ("OPEN", "CLOSED")
    assert 'resilience4j_circuitbreaker_state{name="orders",state="open"} 1' in metrics


async def test_a_revoked_session_is_refused():
    """An ended session's token is refused as soon as auth has said so; other events and noise change nothing."""
    sid = uuid4()
    async with shop() as it:
        await ready(it)
        token = it.issuer.token("ada", sid=str(sid))
        before = await it.get("/api/v1/orders", token)
        await publish(it.broker, "user.registered", {"email": "a@b", "name": "Ada"})
        await publish(it.broker, "session.revoked", {"sid": "no uuid"})
        await it.revoke(sid)

        async def refused():
            return (await it.get("/api/v1/orders", token)).status == 401

        await eventually(refused)
        other = await it.get("/api/v1/orders", it.issuer.token("bob"))

    assert (before.status, other.status) == (200, 200)


async def test_a_broker_that_is_away_stops_nothing():
    """Requests go on, and health says that revocations don't arrive."""
    async with shop() as it:
        await ready(it)
        it.broker.cut()

        async def said():
            _, body = await it.management("/health/ready")
            return json.loads(body)["components"]["revocations"]["status"] == "DOWN"

        await eventually(said)
        answer = await it.get("/api/v1/orders", it.issuer.token())
        status, body = await it.management("/health/ready")
        it.broker.heal()

    assert (answer.status, status, json.loads(body)["status"]) == (200, 200, "UP")


async def test_its_own_endpoints_are_on_their_own_port():
    """Health, metrics, info and routes are answered on the management port; outside only the two for balancers."""
    async with shop() as it:
        await ready(it)
        inside = [
            (await it.management(path))[0] for path in ("/health/live", "/health/ready", "/metrics", "/info", "/x")
        ]
        _, unknown = await it.management("/x")
        outside = [(await it.get(path)).status for path in ("/health/live", "/health/ready", "/metrics", "/info")]
        posted = await it.http.request("127.0.0.1", it.running.gateway.port, "POST", "/health/live", timeout=5)
        _, metrics = await it.management("/metrics")
        _, listed = await it.management("/actuator/gateway/routes")

    assert inside == [200, 200, 200, 200, 404]
    assert (outside, posted.status) == ([200, 200, 404, 404], 404)
    assert json.loads(unknown)["type"] == "urn:backstay:problem:not-found"
    assert 'backstay_gateway_requests_total{route="orders",status="200"}' in metrics
    assert {"route_id", "uri", "order", "predicate", "filters", "metadata"} == set(json.loads(listed)[0])


async def test_it_registers_and_leaves():
    """It is found as `gateway` with its management port, and is gone from the registry when it stops."""
    async with RegistryServer("127.0.0.1", 0) as registry:
        found = settings(
            {
                "GATEWAY_PORT": "0",
                "TOKEN_ISSUER": "x",
                "JWKS_URL": NOBODY,
                "DISCOVERY_URL": f"http://127.0.0.1:{registry.port}/eureka",
                "HEARTBEAT_INTERVAL": "1",
                "FETCH_INTERVAL": "0.1",
            }
        )

        async def instances():
            async with HttpClient() as http:
                response = await http.request(
                    "127.0.0.1",
                    registry.port,
                    "GET",
                    "/eureka/apps/GATEWAY",
                    headers=[("accept", "application/json")],
                    timeout=5,
                )
            return json.loads(response.body)["application"]["instance"] if response.status == 200 else []

        async with build(found).running() as running:
            shown = await eventually(instances)
        left = await instances()

    assert shown[0]["status"] == "UP"
    assert shown[0]["port"]["$"] == running.gateway.port
    assert shown[0]["metadata"]["management.port"] == str(running.management.port)
    assert left == []


async def test_revocations_of_before_the_start_count():
    """A session that ended shortly before the gateway started is refused too."""
    sid = uuid4()
    issuer, broker = TokenIssuer(audience="shop"), MemoryBroker()
    await broker.create_topics({"users": 1})
    await publish(broker, "session.revoked", {"sid": str(sid)})
    found = settings({"GATEWAY_PORT": "0", "TOKEN_ISSUER": issuer.issuer, "JWKS_URL": NOBODY})
    process = build(found, registry=StaticRegistry({}), broker=broker)

    async with process.running() as running:
        await eventually(lambda: str(sid) in running.gateway.guard.denied)


async def test_whom_it_believes_is_configured():
    """Without a fixed issuer it doesn't start, and a name of the registry is none."""
    found = settings({"GATEWAY_PORT": "0"})
    with pytest.raises(ConfigError) as refused:
        async with build(found, registry=StaticRegistry({})).running():
            pass
    assert [problem.partition(" ")[0] for problem in refused.value.problems] == ["TOKEN_ISSUER", "JWKS_URL"]
    with pytest.raises(ConfigError, match="JWKS_URL: 'lb://auth/jwks' is looked up in the registry"):
        settings({"JWKS_URL": "lb://auth/jwks"})
