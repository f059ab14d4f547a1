"""The middlewares in applications of FastAPI, Starlette and Litestar: one behaviour in all three."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, HTTPException, Request
from litestar import Litestar, get
from litestar.connection import Request as LitestarRequest
from litestar.exceptions import HTTPException as LitestarException
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteException
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from tests.backstay.asgi.conftest import calling

from backstay.asgi import AccessLog, Deadlines, Identity, LoadShedding, ProblemDetails, Trace, lifespan
from backstay.auth import TokenVerifier, require
from backstay.http.problems import Conflict
from backstay.resilience import remaining
from backstay.telemetry import current
from backstay.testing import started
from backstay.testing.issuer import TokenIssuer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
# From the outermost to the innermost.
ORDER: list[tuple[Any, dict[str, Any]]] = [
    (Trace, {}),
    (AccessLog, {"service": "things", "format": "console"}),
    (LoadShedding, {"most": 10}),
    (Deadlines, {"limit": 4.0}),
    (ProblemDetails, {}),
]


def seen(state: Any) -> dict[str, Any]:
    """Return what a handler sees of its request."""
    context = current()
    return {
        "who": getattr(state.principal, "id", None),
        "trace": None if context is None else context.trace_id,
        "hurried": (remaining() or 99) <= 4.0,
    }


def fastapi(verifier: TokenVerifier, owned: Any) -> Any:
    app = FastAPI(lifespan=lifespan(owned))

    @app.get("/seen")
    async def see(request: Request) -> dict[str, Any]:
        return seen(request.state)

    @app.get("/admin")
    async def admin(request: Request) -> None:
        require(request.state.principal, role="admin")

    @app.get("/conflict")
    async def conflict() -> None:
        raise Conflict("out-of-stock", "only 3 left")

    @app.get("/http")
    async def http() -> None:
        raise HTTPException(410, "it was sold")

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("password=hunter2")

    app.add_middleware(Identity, verifier=verifier)
    for middleware, options in reversed(ORDER):
        app.add_middleware(middleware, **options)
    return app


def starlette(verifier: TokenVerifier, owned: Any) -> Any:
    async def see(request: StarletteRequest) -> Response:
        return JSONResponse(seen(request.state))

    async def admin(request: StarletteRequest) -> Response:
        require(request.state.principal, role="admin")
        return Response()

    async def conflict(request: StarletteRequest) -> Response:
        raise Conflict("out-of-stock", "only 3 left")

    async def http(request: StarletteRequest) -> Response:
        raise StarletteException(410, "it was sold")

    async def broken(request: StarletteRequest) -> Response:
        raise RuntimeError("password=hunter2")

    handlers = {"/seen": see, "/admin": admin, "/conflict": conflict, "/http": http, "/broken": broken}
    app = Starlette(routes=[Route(path, handler) for path, handler in handlers.items()], lifespan=lifespan(owned))
    app.add_middleware(Identity, verifier=verifier)
    for middleware, options in reversed(ORDER):
        app.add_middleware(middleware, **options)
    return app


def litestar(verifier: TokenVerifier, owned: Any) -> Any:
    @get("/seen")
    async def see(request: LitestarRequest[Any, Any, Any]) -> dict[str, Any]:
        return seen(request.state)

    @get("/admin")
    async def admin(request: LitestarRequest[Any, Any, Any]) -> None:
        require(request.state.principal, role="admin")

    @get("/conflict")
    async def conflict() -> None:
        raise Conflict("out-of-stock", "only 3 left")

    @get("/http")
    async def http() -> None:
        raise LitestarException("it was sold", status_code=410)

    @get("/broken")
    async def broken() -> None:
        raise RuntimeError("password=hunter2")

    def reraise(_: LitestarRequest[Any, Any, Any], error: Exception) -> Any:
        """Leave errors to ProblemDetails: Litestar answers them inside of its middlewares otherwise."""
        raise error

    app: Any = Litestar(
        [see, admin, conflict, http, broken],
        lifespan=[lifespan(owned)],
        exception_handlers={Exception: reraise},
        logging_config=None,
    )
    for middleware, options in [(Identity, {"verifier": verifier}), *reversed(ORDER)]:
        app = middleware(app, **options)
    return app


class Owned:
    """A part of the application."""

    running = False

    async def __aenter__(self) -> "Owned":
        self.running = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running = False


Building = Callable[[TokenVerifier, Any], Any]
everywhere = pytest.mark.parametrize("build", [fastapi, starlette, litestar])


@everywhere
async def test_lifespan(build: Building, verifier: TokenVerifier) -> None:
    """What is owned runs while the application does."""
    owned = Owned()
    async with started(build(verifier, owned)):
        assert owned.running

    assert not owned.running


@everywhere
async def test_a_handler_sees_what_surrounds_it(build: Building, issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    """The caller, the trace and the deadline are those of the request."""
    headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "authorization": f"Bearer {issuer.token()}"}
    async with calling(build(verifier, Owned())) as http:
        assert (await http.get("/seen", headers=headers)).json() == {"who": "user-1", "trace": TRACE, "hurried": True}
        assert (await http.get("/seen")).json()["who"] is None


@everywhere
@pytest.mark.parametrize(
    ("path", "status", "slug", "detail"),
    [
        ("/conflict", 409, "out-of-stock", "only 3 left"),
        ("/admin", 403, "forbidden", None),
        ("/http", 410, "gone", "it was sold"),
        ("/nowhere", 404, "not-found", None),
        ("/broken", 500, "internal-error", "something went wrong; the trace id helps to find it"),
    ],
)
async def test_errors(
    build: Building, issuer: TokenIssuer, verifier: TokenVerifier, path: str, status: int, slug: str, detail: str | None
) -> None:
    """Problems, the framework's own errors, and mistakes go out as problem details."""
    async with calling(build(verifier, Owned())) as http:
        reply = await http.get(path, headers={"authorization": f"Bearer {issuer.token()}"})

    body = reply.json()
    assert (reply.status_code, reply.headers["content-type"]) == (status, "application/problem+json")
    assert (body["type"], body["instance"]) == (f"urn:backstay:problem:{slug}", path)
    assert detail in (None, body.get("detail"))
    assert len(body["traceId"]) == 32
    assert "hunter2" not in reply.text


@everywhere
async def test_a_bad_token_and_a_late_request(build: Building, verifier: TokenVerifier) -> None:
    """Neither reaches a handler."""
    async with calling(build(verifier, Owned())) as http:
        assert (await http.get("/seen", headers={"authorization": "Bearer x.y.z"})).status_code == 401
        assert (await http.get("/seen", headers={"x-request-deadline-ms": "0"})).status_code == 504
