"""No endpoint of any service, at the gateway or past it, serves anybody without a token made for it."""

import asyncio
import time
from uuid import uuid4

import pytest

from backstay.auth.signing import SigningKey

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

SERVICES = ("auth", "catalog", "orders", "payments", "inventory", "notifications", "analytics", "auditor")
PUBLIC = {
    ("auth", "POST", "/api/v1/auth/register"),
    ("auth", "POST", "/api/v1/auth/login"),
    ("auth", "POST", "/api/v1/auth/refresh"),
    ("auth", "GET", "/.well-known/jwks.json"),
    ("catalog", "GET", "/api/v1/products"),
    ("catalog", "GET", "/api/v1/products/{sku}"),
}
"""What may be asked without a token. Whoever adds to it has thought about it."""


def forgeries(token: str, key: SigningKey, tools) -> dict[str, str]:
    """Tokens that must not be believed; each is wrong in one way only."""
    said = tools.claims(token)
    first, middle, last = token.split(".")
    foreign = SigningKey.generate()
    return {
        "none at all": "",
        "not a token": "x",
        "a foreign key under our name": foreign.sign(said, header={"kid": key.kid}),
        "a foreign key under its own name": foreign.sign(said),
        "a foreign key brought along": foreign.sign(said, header={"kid": key.kid, "jwk": foreign.public()}),
        "expired": key.sign({**said, "exp": int(time.time()) - 60}),
        "not yet valid": key.sign({**said, "nbf": int(time.time()) + 3600}),
        "another audience": key.sign({**said, "aud": "another-shop"}),
        "a service's audience": key.sign({**said, "aud": "payments"}),
        "another service's token": key.sign(
            {**{name: value for name, value in said.items() if name != "sid"}, "sub": "orders", "client_id": "orders"}
            | {"aud": "another-service", "scope": "payments:charge payments:read"}
        ),
        "too long a life": key.sign({**said, "exp": int(time.time()) + 86_400}),
        "no time of issue": key.sign({name: value for name, value in said.items() if name != "iat"}),
        "no id": key.sign({name: value for name, value in said.items() if name != "jti"}),
        "no client": key.sign({name: value for name, value in said.items() if name != "client_id"}),
        "another issuer": key.sign({**said, "iss": "https://elsewhere.example"}),
        "another type": key.sign(said, header={"typ": "JWT"}),
        "no expiry": key.sign({name: value for name, value in said.items() if name != "exp"}),
        "alg none": f"{tools.encoded({**tools.header(token), 'alg': 'none'})}.{middle}.",
        "alg HS256": f"{tools.encoded({**tools.header(token), 'alg': 'HS256'})}.{middle}.{last}",
        "no signature": f"{first}.{middle}.",
        "another signature": f"{first}.{middle}.{'A' * len(last)}",
        "more rights": f"{first}.{tools.encoded({**said, 'roles': ['admin']})}.{last}",
    }


async def endpoints(world, service: str) -> list[tuple[str, str]]:
    """Every method and path that a service documents."""
    async with world.instance(service) as web:
        document = await web.get("/openapi.json")
    return [(method.upper(), path) for path, verbs in document["paths"].items() for method in verbs]


def filled(path: str) -> str:
    """A path with something in its holes."""
    return path.replace("{order_id}", str(uuid4())).replace("{sku}", "NW-001")


@pytest.mark.parametrize("service", SERVICES)
async def test_no_endpoint_believes_a_wrong_token(world, web, customer, service: str, tools) -> None:
    """Each documented method and path, past the gateway and through it, with each forgery: 401 and nothing else."""
    key = await tools.true_key(world)
    wrong = forgeries(customer.shopper.token, key, tools)
    guarded = [(m, p) for m, p in await endpoints(world, service) if (service, m, p) not in PUBLIC]
    assert guarded
    async with world.instance(service) as direct:
        for method, path in guarded:
            for name, token in wrong.items():
                reply = await direct.call(method, filled(path), {} if method != "GET" else None, token=token or None)
                assert reply.status == 401, f"{service} {method} {path} with {name}: {reply.status}"
    for method, path in guarded:
        for name in ("none at all", "a foreign key under our name", "alg none", "expired"):
            reply = await web.call(method, filled(path), {} if method != "GET" else None, token=wrong[name] or None)
            assert reply.status in (401, 404, 429), f"gateway {method} {path} with {name}: {reply.status}"


@pytest.mark.parametrize("service", SERVICES)
async def test_what_is_public_is_on_the_list(world, service: str) -> None:
    """An endpoint that answers strangers and isn't on our list is a hole."""
    async with world.instance(service) as direct:
        for method, path in await endpoints(world, service):
            reply = await direct.call(method, filled(path), {} if method != "GET" else None)
            assert (reply.status == 401) != ((service, method, path) in PUBLIC), f"{method} {path}: {reply.status}"


async def test_a_token_of_an_ended_session_ends_at_the_gateway(web, new_customer) -> None:
    """Within five seconds of the logout, on every route."""
    customer = await new_customer()
    token = customer.shopper.token
    assert (await web.call("GET", "/api/v1/orders", token=token)).status == 200
    (await web.call("POST", "/api/v1/auth/logout", token=token)).expect(200, 204)

    started = time.monotonic()
    while (await web.call("GET", "/api/v1/orders", token=token)).status != 401:
        assert time.monotonic() - started < 5
        await asyncio.sleep(0.02)
    for path in ("/api/v1/auth/me", "/api/v1/notifications"):
        assert (await web.call("GET", path, token=token)).status == 401


async def test_a_customer_may_do_nothing_of_an_admins(world, web, customer) -> None:
    """Every admin endpoint is 403 for a customer, at the service too."""
    token = customer.shopper.token
    asked = [("GET", f"/api/v1/analytics/{what}") for what in ("revenue", "top-products", "customers", "funnel")]
    asked += [("POST", "/api/v1/analytics/rebuild"), ("POST", "/api/v1/products"), ("PUT", "/api/v1/stock/NW-001")]
    asked += [("PATCH", "/api/v1/products/NW-001"), ("POST", "/api/v1/stock/NW-001/restock"), ("GET", "/api/v1/stock")]
    for method, path in asked:
        body = {} if method != "GET" else None
        assert (await web.call(method, path, body, token=token)).status == 403, path
        service = {"analytics": "analytics", "products": "catalog", "stock": "inventory"}[path.split("/")[3]]
        async with world.instance(service) as direct:
            assert (await direct.call(method, path, body, token=token)).status == 403, path


async def test_scopes_in_a_token_are_not_a_wish(world, web, customer, tools) -> None:
    """A signed token with fewer scopes may do less: the scope counts, not the role alone."""
    key = await tools.true_key(world)
    said = {**tools.claims(customer.shopper.token), "scope": "notifications:read"}
    token = key.sign(said)

    assert (await web.call("GET", "/api/v1/orders", token=token)).status == 403
    assert (await web.call("GET", "/api/v1/notifications", token=token)).status == 200
