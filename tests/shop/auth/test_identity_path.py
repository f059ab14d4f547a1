"""Identity from end to end: services know their callers by auth's keys, from fixed addresses, without asking it."""

import json

from backstay.dev.ports import free_port
from backstay.http import HttpClient, HttpResponse
from backstay.service import Principal, Service, client, get
from backstay.testing import eventually
from backstay.testing.issuer import TokenIssuer
from shop.auth.main import build, settings
from shop.settings import ShopSettings

PASSWORD = "correct horse battery"
TARGETS = ("payments", "inventory")
JSON = (("content-type", "application/json"),)


@get("/mine", scope="orders:read")
async def mine(who: Principal) -> dict[str, str]:
    """Who asks."""
    return {"id": who.id}


@get("/charges", scope="payments:charge", internal=True)
async def charges(who: Principal) -> dict[str, str]:
    """Which service asks."""
    return {"id": who.id}


async def login(http: HttpClient, port: int) -> str:
    known = {"email": "ann@example.com", "password": PASSWORD}
    for path, content in (("register", {**known, "name": "Ann"}), ("login", known)):
        body = json.dumps(content).encode()
        answer = await http.request(
            "127.0.0.1", port, "POST", f"/api/v1/auth/{path}", headers=JSON, body=body, timeout=10
        )
    return str(json.loads(answer.body)["access_token"])


async def test_a_service_knows_customers_and_services_by_auths_keys(database: str) -> None:
    """Keys and its own token come from fixed addresses in the background; then auth may go away."""
    secret, port = "0123456789abcdef", free_port()
    shared = {"TOKEN_ISSUER": "https://auth.test", "LOG_LEVEL": "warning"}
    told = {
        **shared,
        "PORT": str(port),
        "DATABASE_URL": database,
        "CLIENTS": json.dumps(
            [{"id": "orders", "secret": secret, "scope": "payments:charge", "audience": "payments inventory"}]
        ),
        "ARGON2_MEMORY_KIB": "8",
        "ARGON2_TIME": "1",
    }
    fixed = {**shared, "JWKS_URL": f"http://127.0.0.1:{port}/.well-known/jwks.json"}
    own = {"TOKEN_URL": f"http://127.0.0.1:{port}/oauth2/token", "CLIENT_ID": "orders", "CLIENT_SECRET": secret}
    payments = Service("payments", settings=ShopSettings.read(fixed), routes=[mine, charges])
    clients = [client(f"http://127.0.0.1:1/{name}", scope="payments:charge", audience=name) for name in TARGETS]
    orders = Service("orders", settings=ShopSettings.read({**fixed, **own}), owns=clients)
    async with HttpClient() as http, payments.running() as there, orders.running() as calling:

        async def ask(path: str, token: str) -> HttpResponse:
            headers = (("authorization", f"Bearer {token}"),)
            return await http.request("127.0.0.1", there.port, "GET", path, headers=headers, timeout=10)

        assert (await ask("/mine", TokenIssuer(audience="shop").token())).status == 503, (
            "no keys yet is not the caller's fault"
        )
        async with build(settings(told)).running({"api"}) as auth:
            customer = await login(http, auth.port)
            await eventually(lambda: all(tokens.ready for tokens in calling.tokens.values()))

            async def is_known() -> bool:
                return (await ask("/mine", customer)).status == 200

            await eventually(is_known)
        for_payments, for_inventory = (calling.tokens[name].token() for name in TARGETS)
        assert json.loads((await ask("/charges", for_payments)).body) == {"id": "orders"}
        assert (await ask("/charges", for_inventory)).status == 401, "stolen from another service, it is of no use"
        assert (await ask("/charges", customer)).status == 401
        assert (await ask("/mine", for_payments)).status == 403
        assert (await ask("/mine", customer)).status == 200
        assert (await ask("/mine", customer[:-4] + "AAAA")).status == 401
