"""Nothing secret is in any log of a run, however it got there."""

import json
import re
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from backstay.testing import eventually

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.kafka,
    pytest.mark.xdist_group("acceptance"),
    pytest.mark.timeout(300),
]

JWT = re.compile(r"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}")
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY")
MARK = "s3cr3t-in-the-wrong-place"


async def test_no_log_holds_a_secret(world, web, admin, new_customer, tools) -> None:
    """Passwords, tokens, keys: after orders, refusals, bad bodies and a killed process."""
    customer = await new_customer()
    (await customer.order()).expect(201, 202)
    pair = (
        (await web.call("POST", "/api/v1/auth/login", {"email": customer.shopper.email, "password": tools.password}))
        .expect(200)
        .body
    )
    await web.call("POST", "/api/v1/auth/login", {"email": customer.shopper.email, "password": MARK})
    await web.call("POST", "/api/v1/auth/login", {"email": customer.shopper.email, "password": [MARK]})
    await web.call("POST", "/api/v1/auth/refresh", {"refresh_token": MARK})
    await web.call("GET", f"/api/v1/orders?access_token={MARK}", token=pair["access_token"])
    await web.call("GET", "/api/v1/orders", token=MARK)
    change = {"current_password": MARK, "new_password": MARK}
    await web.call("POST", "/api/v1/auth/password", change, token=pair["access_token"])
    await customer.once({"lines": MARK}, key=MARK)
    await world.tell("kill", "payments")
    (await customer.order()).expect(201, 202)
    await world.up("payments")

    async def confirmed() -> bool:
        return (await customer.order()).status == 201

    await eventually(confirmed, timeout=60, interval=0.2)  # the breaker is closed again, for the tests after this one
    last = uuid4().hex
    await web.call("GET", f"/api/v1/products/{last}")
    gateway = world.home.logs / "gateway.log"
    await eventually(lambda: last in gateway.read_text(), timeout=20)

    secrets = {file.name: file.read_text().strip() for file in (world.home.path / "secrets").iterdir()}
    secrets |= {f"database {name}": urlsplit(url).password for name, url in world.running.databases.items()}
    secrets |= {"a customer's password": tools.password, "a mark of the test": MARK}
    secrets |= {name: pair[name] for name in ("access_token", "refresh_token")}
    secrets |= {"admin's token": admin.token, "control token": world.running.control_token}
    found = []
    for log in sorted(world.home.logs.glob("*.log")):
        text = log.read_text(errors="replace")
        found += [f"{log.name}: {name}" for name, secret in secrets.items() if secret and secret in text]
        found += [f"{log.name}: a token" for _ in JWT.findall(text)[:1]]
        found += [f"{log.name}: a private key" for _ in PRIVATE_KEY.findall(text)[:1]]
    assert found == []


async def test_no_answer_tells_how_we_are_built(web) -> None:
    """Headers name no server or version, errors no code."""
    for path in ("/api/v1/products", "/api/v1/products/none", "/nowhere", "/api/v1/orders"):
        reply = await web.call("GET", path)
        told = json.dumps(dict(reply.headers)).lower()
        assert not any(word in told for word in ("uvloop", "litestar", "python", "x-powered-by"))
        if reply.status >= 400:
            assert not {"traceback", "exception", "stack"} & set(reply.body)
