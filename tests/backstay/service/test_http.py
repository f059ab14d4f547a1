"""A service over real sockets: who may ask, what comes back, what is told about it."""

import asyncio
import json
from datetime import datetime
from enum import Enum
from urllib.parse import parse_qsl

import msgspec
import pytest

from backstay.auth import JwksCache, StaticKeys, TokenVerifier
from backstay.discovery import StaticRegistry
from backstay.errors import ConfigError
from backstay.http import HttpReply, HttpRequest, HttpServer
from backstay.service import Principal, Service, ServiceSettings, client, get, post
from backstay.service.openapi import openapi
from backstay.testing import eventually
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer

GOOD = {"lines": [{"sku": "tea", "quantity": 2}]}
THING = "0190a0a0-0000-7000-8000-000000000000"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    """A body that takes nothing else."""

    number: int


async def test_good_request(api: Api) -> None:
    """The body arrives as its model, the result goes out with the route's status."""
    reply = await api.ask("POST", "/things", GOOD)

    assert (reply.status, reply.json) == (201, {"id": THING, **GOOD})
    assert reply.headers["content-type"] == "application/json"


async def test_path_and_query_are_converted(api: Api) -> None:
    """Path and query arrive as the handler's types, with its defaults."""
    assert (await api.ask("GET", f"/things/{THING}")).json == {"id": THING, "limit": 20, "deep": False}
    assert (await api.ask("GET", f"/things/{THING}?deep=true&limit=7")).json == {"id": THING, "limit": 7, "deep": True}


async def test_repeated_query_parameter_is_a_list(api: Api) -> None:
    """A list parameter takes every occurrence."""
    reply = await api.ask("GET", "/things?tag=a&limit=3&tag=b%20c")

    assert reply.json == {"items": ["a", "b c", "3"], "next": None}


async def test_answer_of_its_own(api: Api) -> None:
    """Bytes go out as they are, under the handler's status and headers."""
    reply = await api.ask("GET", "/raw")

    assert (reply.status, reply.body) == (202, b"<p>")
    assert (reply.headers["content-type"], reply.headers["location"]) == ("text/html", "/raw/1")


async def test_no_token(api: Api) -> None:
    """Without a token: 401 and how to send one."""
    reply = await api.ask("POST", "/things", GOOD, token=None)

    assert (reply.status, reply.slug, reply.headers["www-authenticate"]) == (401, "unauthorized", "Bearer")


@pytest.mark.parametrize("authorization", ["Basic dTpw", "Bearer", "Bearer x.y.z", "x"])
async def test_unacceptable_authorization(api: Api, authorization: str) -> None:
    """With a bad token: 401 with RFC 6750's error."""
    reply = await api.ask("POST", "/things", GOOD, token=None, headers={"authorization": authorization})

    assert reply.status == 401
    assert 'error="invalid_token"' in reply.headers["www-authenticate"]


async def test_missing_scope(api: Api, issuer: TokenIssuer) -> None:
    """A token without the scope: 403 that names it."""
    reply = await api.ask("POST", "/things", GOOD, token=issuer.token(scope="orders:read"))

    assert (reply.status, reply.slug) == (403, "forbidden")
    assert 'scope="orders:write"' in reply.headers["www-authenticate"]


async def test_missing_role(api: Api, issuer: TokenIssuer) -> None:
    """A role is asked for as well; who has it gets through to the handler's own refusal."""
    admin = issuer.token(roles=("admin",))

    assert (await api.ask("POST", f"/things/{THING}/end")).status == 403
    assert (await api.ask("POST", f"/things/{THING}/end", token=admin)).status == 409


async def test_token_on_a_public_route(api: Api) -> None:
    """A public route sees who asks if he says so, and refuses a bad token."""
    assert (await api.ask("GET", "/echo")).json["who"] == "user-1"
    assert None is (await api.ask("GET", "/echo", token=None)).json["who"]
    assert (await api.ask("GET", "/echo", token="bad")).status == 401


async def test_problem_of_the_handler(api: Api, issuer: TokenIssuer) -> None:
    """A problem goes out with all of RFC 9457's members, the trace id and its own."""
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-00"}
    path = f"/things/{THING}/end"
    reply = await api.ask("POST", path, token=issuer.token(roles=("admin",)), headers=headers)

    assert reply.json == {
        "type": "urn:backstay:problem:thing-ended",
        "title": "Thing ended",
        "status": 409,
        "detail": "it has ended already",
        "instance": path,
        "traceId": TRACE,
        "thing": THING,
    }


async def test_mistake_of_ours(api: Api) -> None:
    """What nobody foresaw is 500 without a word of it."""
    reply = await api.ask("GET", "/boom")

    assert (reply.status, reply.slug) == (500, "internal-error")
    assert b"hunter2" not in reply.body
    assert b"RuntimeError" not in reply.body


async def test_something_is_away(api: Api) -> None:
    """A lost connection is 503 with Retry-After, and says no address."""
    reply = await api.ask("GET", "/gone")

    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert b"5432" not in reply.body


async def test_trace_goes_on(api: Api) -> None:
    """The trace of the request is the trace of the work."""
    seen = await api.ask("GET", "/echo", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-some": "y"})

    assert (seen.json["trace"], seen.json["header"]) == (TRACE, "y")


@pytest.mark.parametrize(("given", "most"), [("1500", 1.5), ("9" * 400, 10.0), ("soon", 10.0)])
async def test_deadline_is_inherited(api: Api, given: str, most: float) -> None:
    """The work knows how much time it has: what the caller gave, at most the service's own."""
    left = (await api.ask("GET", "/echo", headers={"x-request-deadline-ms": given})).json["remaining"]

    assert most - 1 < left <= most


@pytest.mark.parametrize("given", ["0", "-20"])
async def test_deadline_is_over(api: Api, given: str) -> None:
    """A request whose time is over is refused before any work."""
    reply = await api.ask("GET", "/boom", headers={"x-request-deadline-ms": given})

    assert (reply.status, reply.slug) == (504, "deadline-exceeded")


async def test_no_keys_yet(issuer: TokenIssuer) -> None:
    """While the issuer's keys are not known a token is neither good nor bad: 503, come back."""

    async def fetch() -> bytes:
        raise ConnectionError("refused")

    verifier = TokenVerifier(issuer.issuer, issuer.audience, JwksCache(fetch))
    service = Service("a", routes=[mine], settings=ServiceSettings(log_level="error"), verifier=verifier)
    async with service.running() as it, Api(it.port, token=issuer.token()) as api:
        reply = await api.ask("GET", "/mine")

    assert (reply.status, reply.slug, reply.headers["retry-after"]) == (503, "unavailable", "1")


@get("/mine")
async def mine(who: Principal) -> str:
    """Who asks."""
    return who.id


async def test_keys_from_the_issuer(issuer: TokenIssuer) -> None:
    """The keys are fetched in the background from where the settings say."""
    async with HttpServer(lambda _: HttpReply(200, issuer.jwks), "127.0.0.1", 0) as auth:
        environ = {
            "TOKEN_ISSUER": issuer.issuer,
            "TOKEN_AUDIENCE": issuer.audience,
            "JWKS_URL": f"http://127.0.0.1:{auth.port}/jwks",
            "LOG_LEVEL": "error",
        }
        service = Service("a", routes=[mine], settings=ServiceSettings.read(environ))
        async with service.running() as it, Api(it.port, token=issuer.token()) as api:

            async def known() -> bool:
                return (await api.ask("GET", "/mine")).status == 200

            await eventually(known)


class Issuer:
    """A token endpoint and a key set: tokens are called after the audience that was asked for."""

    def __init__(self, jwks: bytes = b"") -> None:
        self.jwks = jwks
        self.forms: list[dict[str, str]] = []

    def __call__(self, request: HttpRequest) -> HttpReply:
        if request.path != "/token":
            return HttpReply(200, self.jwks)
        form = dict(parse_qsl(request.body.decode()))
        self.forms.append(form)
        return HttpReply(200, b'{"access_token": "for-%s", "expires_in": 600}' % form.get("audience", "").encode())


def echo(request: HttpRequest) -> HttpReply:
    """Answers with the authorization that it got."""
    return HttpReply(200, b'"%s"' % request.headers.get("authorization", "").encode())


async def test_own_tokens_name_whom_they_are_for(issuer: TokenIssuer) -> None:
    """A service gets a token for each service that it calls, with what its clients may do there, and sends that one."""
    asked = Issuer()
    async with HttpServer(asked, "127.0.0.1", 0) as auth, HttpServer(echo, "127.0.0.1", 0) as other:
        url = f"http://127.0.0.1:{other.port}"
        environ = {
            "TOKEN_URL": f"http://127.0.0.1:{auth.port}/token",
            "CLIENT_ID": "a",
            "CLIENT_SECRET": "s",
            "LOG_LEVEL": "error",
        }
        stock = client(url, scope="stock:write stock:read", audience="stock")
        money = client("lb://payments", scope="payments:read")
        registry = StaticRegistry({"payments": [f"127.0.0.1:{other.port}"]})
        service = Service("a", owns=[stock, money], settings=ServiceSettings.read(environ), registry=registry)
        async with service.running():
            assert await eventually(lambda: stock.get("/", str)) == "Bearer for-stock"
            assert await eventually(lambda: money.get("/", str)) == "Bearer for-payments"
    given = {"grant_type": "client_credentials", "client_id": "a", "client_secret": "s"}
    assert sorted(asked.forms, key=lambda form: form["audience"]) == [
        {**given, "audience": "payments", "scope": "payments:read"},
        {**given, "audience": "stock", "scope": "stock:read stock:write"},
    ]


async def test_one_of_two_issuers_is_killed(issuer: TokenIssuer) -> None:
    """Tokens are verified and renewed by the other one, whichever it is."""
    asked = Issuer(issuer.jwks)
    async with HttpServer(asked, "127.0.0.1", 0) as alive, HttpServer(echo, "127.0.0.1", 0) as other:
        gone = 1
        for ports in ((gone, alive.port), (alive.port, gone)):
            asked.forms.clear()
            environ = {
                "TOKEN_ISSUER": issuer.issuer,
                "TOKEN_AUDIENCE": issuer.audience,
                "JWKS_URL": ",".join(f"http://127.0.0.1:{port}/jwks" for port in ports),
                "TOKEN_URL": ", ".join(f"http://127.0.0.1:{port}/token" for port in ports),
                "CLIENT_ID": "a",
                "CLIENT_SECRET": "s",
                "LOG_LEVEL": "error",
            }
            others = client(f"http://127.0.0.1:{other.port}", audience="other")
            service = Service("a", routes=[mine], owns=[others], settings=ServiceSettings.read(environ))
            async with service.running() as it, Api(it.port, token=issuer.token()) as api:

                async def known() -> bool:
                    return (await api.ask("GET", "/mine")).status == 200

                await eventually(known)
                assert await eventually(lambda: others.get("/", str)) == "Bearer for-other"  # noqa: B023
                it.tokens["other"].renew()
                await eventually(lambda: len(asked.forms) == 2)


@post("/charges", scope="payments:charge", internal=True)
async def charge(who: Principal) -> str:
    """Charge."""
    return who.id


async def test_a_route_for_services_only(issuer: TokenIssuer) -> None:
    """It takes the tokens that name this service, of services, with the scope; nothing else."""
    verifier = TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks), service="payments")
    service = Service("payments", routes=[charge], settings=ServiceSettings(log_level="error"), verifier=verifier)
    scope = "payments:charge"
    cases = [
        (issuer.service_token("orders", scope=scope, audience="payments"), 200),
        (issuer.service_token("orders", scope="payments:read", audience="payments"), 403),
        (issuer.service_token("orders", scope=scope, audience="inventory"), 401),
        (issuer.service_token("orders", scope=scope), 401),
        (issuer.token(scope=scope), 401),
        (issuer.token(scope=scope, aud=["shop", "payments"]), 401),
    ]
    async with service.running() as it, Api(it.port) as api:
        for token, status in cases:
            assert (await api.ask("POST", "/charges", token=token)).status == status


def test_routes_for_services_are_marked() -> None:
    """A reader of the document sees whose token a route takes."""
    document = json.loads(openapi("payments", "1", [charge, mine]))

    assert document["paths"]["/charges"]["post"]["x-internal"] is True
    assert "x-internal" not in document["paths"]["/mine"]["get"]


async def test_what_is_missing_for_tokens_is_told_together() -> None:
    """Nobody guesses where keys come from."""
    settings = ServiceSettings.read({"CLIENT_ID": "a", "CLIENT_SECRET": "s"})
    with pytest.raises(ConfigError) as refused:
        async with Service("a", routes=[mine], settings=settings).running():
            pass
    assert [problem.partition(" ")[0] for problem in refused.value.problems] == [
        "TOKEN_ISSUER",
        "TOKEN_AUDIENCE",
        "JWKS_URL",
        "TOKEN_URL",
    ]


async def test_a_verifier_must_know_whose_it_is(issuer: TokenIssuer) -> None:
    """Else routes for services only would be closed to all of them."""
    verifier = TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks))
    with pytest.raises(ConfigError, match="service='payments'"):
        async with Service("payments", routes=[charge], settings=ServiceSettings(), verifier=verifier).running():
            pass


async def test_too_many_at_once(issuer: TokenIssuer) -> None:
    """More requests than a service answers at the same moment are refused at once."""
    arrived, go = asyncio.Event(), asyncio.Event()

    @get("/slow", public=True)
    async def slow() -> None:
        arrived.set()
        await go.wait()

    settings = ServiceSettings(log_level="error", max_requests=1)
    async with Service("a", routes=[slow], settings=settings).running() as it, Api(it.port) as api:
        first = asyncio.create_task(api.ask("GET", "/slow"))
        await arrived.wait()
        refused = await api.ask("GET", "/slow")
        go.set()

        assert ((await first).status, refused.status) == (204, 503)


async def test_options(api: Api) -> None:
    """OPTIONS says what is possible."""
    reply = await api.ask("OPTIONS", "/things")

    assert (204, {"GET", "HEAD", "POST", "OPTIONS"}) == (reply.status, set(reply.headers["allow"].split(", ")))


@pytest.mark.parametrize("target", ["/things?limit=3", f"/things/{THING}", "/health/live", f"/things/{THING}?limit=x"])
async def test_head(api: Api, target: str) -> None:
    """Where GET is possible HEAD is too: the same status and headers, without the body."""
    whole, head = await api.ask("GET", target), await api.ask("HEAD", target)

    assert (whole.status, whole.headers["content-type"]) == (head.status, head.headers["content-type"])
    assert str(len(whole.body)) == head.headers["content-length"]
    assert head.body == b""


async def test_head_of_what_has_no_get(api: Api) -> None:
    """HEAD is as impossible as GET elsewhere."""
    refused = await api.ask("HEAD", f"/things/{THING}/end")

    assert (refused.status, refused.headers["allow"]) == (405, "OPTIONS, POST")


async def test_health_and_info(api: Api) -> None:
    """Every service says that it lives, that it is ready, and what it is; without a token."""
    assert (await api.ask("GET", "/health/ready", token=None)).json == {"status": "UP", "checks": {}}
    assert (await api.ask("GET", "/health/live", token=None)).status == 200
    assert (await api.ask("GET", "/info", token=None)).json["name"] == "things"


async def test_metrics(api: Api) -> None:
    """Requests are counted by route, not by path."""
    await api.ask("GET", f"/things/{THING}")
    await api.ask("GET", "/nowhere")
    text = (await api.ask("GET", "/metrics", token=None)).body.decode()

    assert 'http_server_requests_total{method="GET",route="/things/{thing_id}",status="200"} 1.0' in text
    assert 'http_server_requests_total{method="",route="(none)",status="404"} 1.0' in text
    assert "process_resident_memory_bytes" in text


@pytest.mark.parametrize("path", ["/openapi.json", "/api/v1/openapi/things.json"])
async def test_openapi(api: Api, path: str) -> None:
    """The document knows body, parameters, answers, problems and scopes; system routes are not in it."""
    document = (await api.ask("GET", path, token=None)).json
    post = document["paths"]["/things"]["post"]

    assert {"/things", "/things/{thing_id}", "/things/{thing_id}/end", "/echo", "/boom", "/gone", "/raw"} == set(
        document["paths"]
    )
    assert post["security"] == [{"token": ["orders:write"]}]
    assert post["summary"] == "Make a thing."
    assert {"201", "400", "401", "403", "413", "415", "422"} <= set(post["responses"])
    assert "application/problem+json" in post["responses"]["422"]["content"]
    assert document["components"]["schemas"]["NewThing"]["required"] == ["lines"]
    assert document["paths"]["/things/{thing_id}"]["get"]["parameters"][0]["schema"]["format"] == "uuid"


def test_a_body_that_takes_no_other_fields_says_so() -> None:
    """In the document, as it does in its refusals."""

    async def take(body: Closed) -> None:
        """Take it."""

    schemas = json.loads(openapi("things", "1", [post("/closed")(take)]))["components"]["schemas"]

    assert schemas["Closed"]["additionalProperties"] is False


class Day(Enum):
    """A day of delivery."""

    TODAY = "today"
    TOMORROW = "tomorrow"


def test_several_answers_have_bodies_of_their_own() -> None:
    """The usual one, one with the same body, one with another, one without, and a problem."""

    class Receipt(msgspec.Struct):
        at: datetime

    async def take(body: Closed, day: Day | None = None) -> Closed:
        """Take it."""
        return body

    answers = {202: "Taken later", 200: (Receipt, "Was taken before"), 204: "Nothing to take", 402: "Not paid"}
    document = json.loads(openapi("things", "1", [post("/closed", status=201, answers=answers)(take)]))
    operation = document["paths"]["/closed"]["post"]
    bodies = {
        status: schema["$ref"].rpartition("/")[2]
        for status, answer in operation["responses"].items()
        for content in answer.get("content", {}).values()
        if (schema := content["schema"])
    }

    assert {status: name for status, name in bodies.items() if name != "ProblemBody"} == {
        "200": "Receipt",
        "201": "Closed",
        "202": "Closed",
    }
    assert bodies["402"] == "ProblemBody"
    assert "content" not in operation["responses"]["204"]
    assert operation["responses"]["200"]["description"] == "Was taken before"
    assert document["components"]["schemas"]["Receipt"]["properties"]["at"] == {
        "type": "string",
        "format": "date-time",
    }
    assert operation["parameters"] == [
        {
            "name": "day",
            "in": "query",
            "required": False,
            "schema": {"anyOf": [{"$ref": "#/components/schemas/Day"}, {"type": "null"}]},
        }
    ]


@pytest.mark.parametrize("path", ["/docs", "/docs/things"])
async def test_docs(api: Api, path: str) -> None:
    """The page stands alone: nothing in it is fetched from elsewhere."""
    page = (await api.ask("GET", path, token=None)).body.decode()

    assert "/things/{thing_id}" in page
    assert "src=" not in page
    assert "http" not in page.replace("http_", "").partition('id="document"')[0]
