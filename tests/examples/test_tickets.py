"""The FastAPI example, on a real database."""

import importlib.util
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import httpx
import pytest

from backstay.auth import StaticKeys
from backstay.db import Database
from backstay.testing import started
from backstay.testing.issuer import TokenIssuer

EXAMPLE = Path(__file__).parents[2] / "examples" / "tickets"
KEY = {"idempotency-key": "k-1"}


@pytest.fixture(scope="module")
def issuer() -> TokenIssuer:
    return TokenIssuer("https://auth.example", audience="tickets")


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tickets_main", EXAMPLE / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def http(database: str, issuer: TokenIssuer, example: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    db = Database("tickets", dsn=database, migrations=EXAMPLE / "migrations")
    app: Any = example.application(db, StaticKeys(issuer.jwks))
    headers = {"authorization": f"Bearer {issuer.token(scope='tickets:write')}"}
    async with (
        started(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client,
    ):
        yield client


async def test_a_ticket_is_sold_once_with_its_event(http: httpx.AsyncClient, database: str) -> None:
    """A repeated key gets the first answer; the ticket and its event are there once."""
    first = await http.post("/tickets", json={"film": "Stalker"}, headers=KEY)
    repeat = await http.post("/tickets", json={"film": "Stalker"}, headers=KEY)
    connection = await asyncpg.connect(database)
    sold = await connection.fetch("SELECT id::text, owner FROM tickets")
    events = await connection.fetch("SELECT aggregateid, type FROM outbox")
    await connection.close()

    assert (first.status_code, repeat.content) == (201, first.content)
    assert [tuple(row) for row in sold] == [(first.json()["id"], "user-1")]
    assert [tuple(row) for row in events] == [(first.json()["id"], "ticket.sold")]


@pytest.mark.parametrize(
    ("body", "headers", "status", "slug"),
    [
        ({"film": "sold out"}, {}, 409, "sold-out"),
        ({}, {}, 422, "unprocessable-entity"),
        ({"film": "Stalker"}, {"authorization": "Bearer x.y.z"}, 401, "unauthorized"),
        ({"film": "Stalker"}, {"x-request-deadline-ms": "0"}, 504, "deadline-exceeded"),
    ],
)
async def test_refusals(http: httpx.AsyncClient, body: Any, headers: dict[str, str], status: int, slug: str) -> None:
    """Every refusal is a problem with the trace of its request."""
    reply = await http.post("/tickets", json=body, headers=headers)
    problem = reply.json()

    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert (problem["type"], len(problem["traceId"])) == (f"urn:backstay:problem:{slug}", 32)


async def test_a_scope_is_needed(http: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    """A token without the scope is refused with its name."""
    headers = {"authorization": f"Bearer {issuer.token(scope='tickets:read')}"}
    reply = await http.post("/tickets", json={"film": "Stalker"}, headers=headers)

    assert (reply.status_code, reply.json()["type"]) == (403, "urn:backstay:problem:forbidden")
    assert 'scope="tickets:write"' in reply.headers["www-authenticate"]
