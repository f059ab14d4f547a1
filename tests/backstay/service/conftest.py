"""A small service with real sockets, an issuer of tokens, and a way to say anything to it."""

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest

from backstay.auth import StaticKeys, TokenVerifier
from backstay.resilience import remaining
from backstay.service import Answer, Conflict, Page, Principal, Request, Service, ServiceSettings, get, post
from backstay.telemetry import current
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer


class Line(msgspec.Struct):
    sku: str
    quantity: Annotated[int, msgspec.Meta(ge=1, le=10_000)]


class NewThing(msgspec.Struct):
    lines: Annotated[list[Line], msgspec.Meta(min_length=1)]
    note: str | None = None


class Thing(msgspec.Struct):
    id: UUID
    lines: list[Line]


class Echo(msgspec.Struct):
    who: str | None
    trace: str
    remaining: float | None
    header: str | None


THING = UUID("0190a0a0-0000-7000-8000-000000000000")


@post("/things", scope="orders:write", status=201)
async def make(body: NewThing, who: Principal) -> Thing:
    """Make a thing."""
    return Thing(THING, body.lines)


@get("/things/{thing_id}")
async def one(thing_id: UUID, limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20, deep: bool = False) -> Any:
    """One thing."""
    return {"id": thing_id, "limit": limit, "deep": deep}


@get("/things")
async def several(limit: int, tag: list[str] = []) -> Page[str]:  # noqa: B006
    """Several things."""
    return Page([*tag, str(limit)])


@post("/things/{thing_id}/end", role="admin")
async def end(thing_id: UUID) -> None:
    """End a thing."""
    raise Conflict("thing-ended", "it has ended already", thing=str(thing_id))


@get("/echo", public=True)
async def echo(request: Request, who: Principal | None) -> Echo:
    """What the handler sees."""
    context = current()
    assert context is not None
    return Echo(who.id if who else None, context.trace_id, remaining(), request.header("X-Some"))


@get("/boom", public=True)
async def boom() -> None:
    """A mistake of ours."""
    raise RuntimeError("password=hunter2")


@get("/gone", public=True)
async def away() -> None:
    """Something is away."""
    raise ConnectionRefusedError("10.0.0.7:5432")


@get("/raw", public=True)
async def raw() -> Answer[bytes]:
    """Bytes of our own."""
    return Answer(b"<p>", 202, {"Content-Type": "text/html", "Location": "/raw/1"})


@post("/internal", public=True, hidden=True)
async def internal(body: NewThing) -> int:
    """A call from another service."""
    return len(body.lines)


ROUTES = [make, one, several, end, echo, boom, away, raw, internal]


@pytest.fixture(scope="session")
def issuer() -> TokenIssuer:
    return TokenIssuer(audience="shop")


@pytest.fixture
def verifier(issuer: TokenIssuer) -> TokenVerifier:
    return TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks))


@pytest.fixture
async def api(issuer: TokenIssuer, verifier: TokenVerifier) -> AsyncIterator[Api]:
    settings = ServiceSettings(max_body=2000, body_timeout=0.4, drain_timeout=2.0)
    service = Service("things", routes=ROUTES, settings=settings, verifier=verifier)
    async with service.running() as running, Api(running.port, token=issuer.token()) as api:
        yield api
