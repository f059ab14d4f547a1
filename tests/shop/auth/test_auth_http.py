"""Auth over real sockets, put together as it runs."""

import base64
import json
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest

from backstay.auth import InvalidToken, StaticKeys, TokenVerifier
from backstay.http import HttpClient, HttpResponse
from backstay.testing.issuer import TokenIssuer
from shop.auth.main import build, settings

PASSWORD = "correct horse battery"
ANN = {"email": "ann@example.com", "password": PASSWORD, "name": "Ann"}
CLIENTS = [
    {
        "id": "orders",
        "secret": "0123456789abcdef",
        "scope": "payments:charge payments:read",
        "audience": "payments inventory",
    }
]
FORM = "application/x-www-form-urlencoded"


class Front:
    """Somebody who speaks to auth."""

    def __init__(self, http: HttpClient, port: int) -> None:
        self.http, self.port = http, port

    async def send(
        self, method: str, path: str, body: bytes = b"", *, token: str | None = None, **headers: str
    ) -> HttpResponse:
        fields = [(name.replace("_", "-"), value) for name, value in headers.items()]
        if token is not None:
            fields.append(("authorization", f"Bearer {token}"))
        return await self.http.request("127.0.0.1", self.port, method, path, headers=fields, body=body, timeout=10)

    async def post(self, name: str, body: object = None, *, token: str | None = None) -> HttpResponse:
        content = b"" if body is None else json.dumps(body).encode()
        path = f"/api/v1/auth/{name}"
        return await self.send("POST", path, content, token=token, content_type="application/json")

    async def login(self) -> dict[str, str]:
        await self.post("register", ANN)
        answer = await self.post("login", {"email": ANN["email"], "password": PASSWORD})
        assert answer.status == 200, answer.body
        return json.loads(answer.body)  # type: ignore[no-any-return]


@pytest.fixture
async def front(database: str) -> AsyncIterator[Front]:
    environ = {
        "DATABASE_URL": database,
        "TOKEN_ISSUER": "https://auth.test",
        "ARGON2_MEMORY_KIB": "8",
        "ARGON2_TIME": "1",
        "CLIENTS": json.dumps(CLIENTS),
        "ADMIN_EMAIL": "admin@shop.example",
        "ADMIN_PASSWORD": PASSWORD,
        "KEY_ENCRYPTION_SECRET": "0123456789abcdef",
        "LOG_LEVEL": "warning",
    }
    async with build(settings(environ)).running({"api", "jobs"}) as running, HttpClient() as http:
        yield Front(http, running.port)


def problem(answer: HttpResponse) -> dict[str, object]:
    assert answer.headers["content-type"] == "application/problem+json"
    return json.loads(answer.body)  # type: ignore[no-any-return]


async def test_the_whole_life_of_a_session(front: Front) -> None:
    """Register, log in, look, refresh, change the password, log out."""
    tokens = await front.login()
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 300

    me = json.loads((await front.send("GET", "/api/v1/auth/me", token=tokens["access_token"])).body)
    assert (me["email"], me["name"], me["roles"]) == ("ann@example.com", "Ann", ["customer"])

    refreshed = await front.post("refresh", {"refresh_token": tokens["refresh_token"]})
    assert refreshed.headers["cache-control"] == "no-store"
    newer = json.loads(refreshed.body)
    change = {"current_password": PASSWORD, "new_password": "a quite new password"}
    assert (await front.post("password", change, token=newer["access_token"])).status == 204
    assert (await front.post("logout", token=newer["access_token"])).status == 204
    assert (await front.post("refresh", {"refresh_token": newer["refresh_token"]})).status == 401


async def test_register_answers_the_same_for_a_known_address(front: Front) -> None:
    """202, the same bytes, the same headers but the date."""
    answers = [await front.post("register", ANN) for _ in range(2)]

    assert [answer.status for answer in answers] == [202, 202]
    assert answers[0].body == answers[1].body
    names = [[name for name, _ in answer.headers.items()] for answer in answers]
    assert names[0] == names[1]


async def test_a_bad_registration_names_its_fields(front: Front) -> None:
    """422 with pointers for rules, 422 for a missing field, 400 for what is not JSON."""
    bad = problem(await front.post("register", {"email": "x", "password": "y", "name": ""}))
    assert [error["pointer"] for error in bad["errors"]] == ["/email", "/password", "/name"]  # type: ignore[attr-defined]

    missing = await front.post("register", {"email": "ann@example.com", "password": PASSWORD})
    assert (missing.status, problem(missing)["errors"]) == (
        422,
        [{"pointer": "/name", "reason": "Object missing required field `name`"}],
    )
    malformed = await front.send("POST", "/api/v1/auth/register", b"{", content_type="application/json")
    assert malformed.status == 400
    huge = await front.post("register", {**ANN, "name": "x" * 20_000})
    assert huge.status == 413


async def test_wrong_credentials_are_401_and_then_429(front: Front) -> None:
    """With a problem of its own, and Retry-After; other addresses go on."""
    await front.post("register", ANN)
    answers = [await front.post("login", {"email": ANN["email"], "password": "a wrong guess"}) for _ in range(10)]

    assert answers[0].status == 401
    assert problem(answers[0])["type"] == "urn:backstay:problem:wrong-credentials"
    assert answers[-1].status == 429
    assert int(answers[-1].headers["retry-after"]) >= 1
    elsewhere = await front.send(
        "POST",
        "/api/v1/auth/login",
        json.dumps({"email": ANN["email"], "password": PASSWORD}).encode(),
        content_type="application/json",
        x_forwarded_for="198.51.100.7",
    )
    assert elsewhere.status == 200


async def test_ones_own_needs_a_token(front: Front) -> None:
    """401 that says so, without a token and with one of somebody else's."""
    for method, path in (("GET", "me"), ("POST", "logout"), ("POST", "password")):
        without = await front.send(method, f"/api/v1/auth/{path}")
        foreign = await front.send(method, f"/api/v1/auth/{path}", token=TokenIssuer(audience="shop").token())

        assert (without.status, foreign.status) == (401, 401), path
        assert without.headers["www-authenticate"] == "Bearer"
        assert 'error="invalid_token"' in foreign.headers["www-authenticate"]


async def test_a_service_is_nobody_here(front: Front) -> None:
    """Its token has no session to end and no self to look at."""
    token = json.loads((await client_token(front)).body)["access_token"]

    for method, path in (("GET", "me"), ("POST", "logout")):
        assert (await front.send(method, f"/api/v1/auth/{path}", token=token)).status == 401


async def test_the_key_set_checks_the_tokens(front: Front) -> None:
    """Whoever has it knows who asks, without asking auth; it may be kept for a minute."""
    tokens = await front.login()
    answer = await front.send("GET", "/.well-known/jwks.json")

    assert answer.headers["cache-control"] == "public, max-age=60"
    who = TokenVerifier("https://auth.test", "shop", StaticKeys(answer.body)).verify(tokens["access_token"])
    assert who.roles == {"customer"}


async def test_the_first_admin_can_log_in(front: Front) -> None:
    """Made from the settings."""
    answer = await front.post("login", {"email": "admin@shop.example", "password": PASSWORD})
    token = json.loads(answer.body)["access_token"]

    me = await front.send("GET", "/api/v1/auth/me", token=token)
    assert json.loads(me.body)["roles"] == ["customer", "admin"]


async def client_token(front: Front, **changes: str) -> HttpResponse:
    form = {"grant_type": "client_credentials", "client_id": "orders", "client_secret": "0123456789abcdef"}
    form |= {"audience": "payments", **changes}
    return await front.send("POST", "/oauth2/token", urlencode(form).encode(), content_type=FORM)


async def test_a_service_gets_its_token_by_body_or_basic(front: Front) -> None:
    """Both ways of RFC 6749; the answer is never cached."""
    by_body = await client_token(front)
    basic = base64.b64encode(b"orders:0123456789abcdef").decode()
    by_header = await front.send(
        "POST",
        "/oauth2/token",
        b"grant_type=client_credentials&scope=payments%3Aread&audience=inventory",
        content_type=FORM,
        authorization=f"Basic {basic}",
    )

    assert (by_body.status, by_header.status) == (200, 200)
    assert by_body.headers["cache-control"] == "no-store"
    body = json.loads(by_body.body)
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 600, "payments:charge payments:read")
    assert json.loads(by_header.body)["scope"] == "payments:read"

    keys = StaticKeys((await front.send("GET", "/.well-known/jwks.json")).body)
    for answer, target, other in ((by_body, "payments", "inventory"), (by_header, "inventory", "payments")):
        token = json.loads(answer.body)["access_token"]
        assert TokenVerifier("https://auth.test", "shop", keys, service=target).verify(token).internal
        with pytest.raises(InvalidToken, match="wrong audience"):
            TokenVerifier("https://auth.test", "shop", keys, service=other).verify(token)


async def test_refused_token_requests(front: Front) -> None:
    """In OAuth's own form."""
    cases: list[tuple[dict[str, str], int, str]] = [
        ({"client_secret": "wrong"}, 401, "invalid_client"),
        ({"client_id": "unknown"}, 401, "invalid_client"),
        ({"scope": "catalog:write"}, 400, "invalid_scope"),
        ({"audience": "catalog"}, 400, "invalid_target"),
        ({"audience": "shop"}, 400, "invalid_target"),
        ({"audience": "payments inventory"}, 400, "invalid_target"),
        ({"audience": ""}, 400, "invalid_target"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
    ]
    for changes, status, error in cases:
        answer = await client_token(front, **changes)

        assert (answer.status, json.loads(answer.body)["error"]) == (status, error), changes


async def test_nonsense_to_the_token_endpoint(front: Front) -> None:
    """400 for a body, 401 for an authentication that can't be read, never 500."""
    for body in (b"", b"\xff\xfe", b"grant_type=client_credentials&grant_type=password"):
        assert (await front.send("POST", "/oauth2/token", body, content_type=FORM)).status == 400, body

    grant = b"grant_type=client_credentials"
    for given in ("Basic", "Basic !!!", "Basic /w==", "Bearer x", "Digest x"):
        answer = await front.send("POST", "/oauth2/token", grant, content_type=FORM, authorization=given)
        assert answer.status == 401, given


async def test_logins_are_counted(front: Front) -> None:
    """An operator sees logins, failures and hashing in the metrics."""
    await front.login()
    await front.post("login", {"email": ANN["email"], "password": "a wrong guess"})

    metrics = (await front.send("GET", "/metrics")).body.decode()
    for line in ("accounts_registrations_total", "accounts_logins_total", "key_ring_published"):
        assert f"backstay_{line}{{" in metrics
    assert 'backstay_accounts_failed_logins_total{name="auth",of=""} 1.0' in metrics


async def test_what_every_service_answers(front: Front) -> None:
    """Health, metrics and description."""
    for path in ("/health/live", "/health/ready", "/metrics", "/info", "/openapi.json", "/docs"):
        assert (await front.send("GET", path)).status == 200, path
