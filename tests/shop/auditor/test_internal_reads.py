"""The internal reads that the auditor lives on: for services with a token for this one, and for nobody else."""

import importlib
from typing import Any
from urllib.parse import quote

import msgspec
import pytest

READS = [
    ("orders", "/internal/audit"),
    ("payments", "/internal/audit"),
    ("payments", "/internal/audit/provider"),
    ("inventory", "/internal/audit"),
    ("notifications", "/internal/audit"),
]


@pytest.mark.parametrize(("name", "path"), READS)
async def test_a_read_is_for_services_with_a_token_for_this_one(
    database: str, calling: Any, name: str, path: str
) -> None:
    """Right token 200; a customer, an admin, a token for another service 401; without the scope 403; nonsense 422."""
    main = importlib.import_module(f"shop.{name}.main")
    environ = {
        "DATABASE_URL": database,
        "DISCOVERY_URL": "http://127.0.0.1:1/eureka",
        "TOKEN_ISSUER": "https://auth.test",
        "JWKS_URL": "http://127.0.0.1:1/jwks",
        "TOKEN_URL": "http://127.0.0.1:1/token",
        "KAFKA": "127.0.0.1:1",
    }
    async with calling(main.build(main.settings(environ))) as api:

        async def read(token: str, query: str = "") -> Any:
            headers = [("authorization", f"Bearer {token}")]
            return await api.http.request(
                "127.0.0.1", api.running.port, "GET", path + query, headers=headers, timeout=10.0
            )

        def token(audience: str, scope: str = "audit:read") -> str:
            made: str = api.issuer.service_token("auditor", scope=scope, audience=audience)
            return made

        right = token(name)
        empty = await read(right)
        assert (empty.status, msgspec.json.decode(empty.body)) == (200, {"items": [], "cursor": None, "more": False})
        assert (await read(token("catalog"))).status == 401
        assert (await read(token(name, "orders:read"))).status == 403
        assert (await read(api.token("admin"))).status == 401
        for query in ("?since=nonsense", f"?since={quote('x' * 600)}", "?limit=0", "?limit=1001", "?limit=x"):
            refused = await read(right, query)
            assert refused.status == 422, query
            pointer = f"/query/{query[1:].split('=')[0]}"
            assert [error["pointer"] for error in msgspec.json.decode(refused.body)["errors"]] == [pointer]
