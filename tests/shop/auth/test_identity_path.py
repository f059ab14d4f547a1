"""Identity from end to end: auth is found by the registry, and another service knows its callers without asking it."""

import json

from backstay.discovery import RegistryServer
from backstay.http import HttpClient, HttpResponse
from backstay.service import Principal, Service, ServiceSettings, get
from backstay.testing import eventually
from backstay.testing.issuer import TokenIssuer
from shop.auth.main import build, settings

PASSWORD = "correct horse battery"
JSON = (("content-type", "application/json"),)


@get("/mine", scope="orders:read")
async def mine(who: Principal) -> dict[str, str]:
    """Who asks."""
    return {"id": who.id}


@get("/charges", scope="payments:charge")
async def charges(who: Principal) -> dict[str, str]:
    """Which service asks."""
    return {"id": who.id}


async def login(http: HttpClient, port: int) -> str:
    body = json.dumps({"email": "ann@example.com", "password": PASSWORD, "name": "Ann"}).encode()
    for path in ("register", "login"):
        answer = await http.request(
            "127.0.0.1", port, "POST", f"/api/v1/auth/{path}", headers=JSON, body=body, timeout=10
        )
    return str(json.loads(answer.body)["access_token"])


async def test_a_service_knows_customers_and_services_by_auths_keys(database: str) -> None:
    """Keys and its own token come through the registry in the background; then auth may go away."""
    async with RegistryServer(port=0) as registry, HttpClient() as http:
        shared = {
            "DISCOVERY_URL": f"http://127.0.0.1:{registry.port}/eureka",
            "HEARTBEAT_INTERVAL": "0.2",
            "LEASE_DURATION": "5",
            "FETCH_INTERVAL": "0.2",
            "TOKEN_ISSUER": "https://auth.test",
            "LOG_LEVEL": "warning",
        }
        secret = "0123456789abcdef"
        clients = json.dumps([{"id": "orders", "secret": secret, "scope": "payments:charge"}])
        told = {**shared, "DATABASE_URL": database, "CLIENTS": clients, "ARGON2_MEMORY_KIB": "8", "ARGON2_TIME": "1"}
        orders = Service(
            "orders",
            settings=ServiceSettings.read({**shared, "CLIENT_ID": "orders", "CLIENT_SECRET": secret}),
            routes=[mine, charges],
        )
        async with orders.running() as there:

            async def ask(path: str, token: str) -> HttpResponse:
                headers = (("authorization", f"Bearer {token}"),)
                return await http.request("127.0.0.1", there.port, "GET", path, headers=headers, timeout=10)

            assert (await ask("/mine", TokenIssuer("https://auth.test").token())).status == 503, (
                "no keys yet is not the caller's fault"
            )
            async with build(settings(told)).running({"api"}) as auth:
                customer = await login(http, auth.port)
                await eventually(lambda: there.tokens is not None and there.tokens.ready)

                async def is_known() -> bool:
                    return (await ask("/mine", customer)).status == 200

                await eventually(is_known)
                own = there.tokens.token() if there.tokens else ""
            assert json.loads((await ask("/charges", own)).body) == {"id": "orders"}
            assert (await ask("/charges", customer)).status == 403
            assert (await ask("/mine", own)).status == 403
            assert (await ask("/mine", customer)).status == 200
            assert (await ask("/mine", customer[:-4] + "AAAA")).status == 401
