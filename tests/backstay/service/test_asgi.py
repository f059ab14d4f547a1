"""A service is an ASGI application: in a test without a socket, in another application, and with others in it."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from starlette.applications import Starlette
from starlette.requests import Request as StarletteRequest
from starlette.responses import JSONResponse
from starlette.routing import Mount as StarletteMount
from starlette.routing import Route as StarletteRoute

from backstay.asgi import lifespan
from backstay.auth import TokenVerifier
from backstay.discovery import StaticRegistry
from backstay.http import HttpError
from backstay.resilience import remaining
from backstay.service import Principal, Service, ServiceSettings, get, mount
from backstay.service.scopes import local_scope
from backstay.service.workers import WorkerLock
from backstay.telemetry import current
from backstay.testing import started
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer

SETTINGS = ServiceSettings(log_level="error")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Part:
    """Something that is owned; `role` makes it one that runs once on a host."""

    def __init__(self, role: str | None = None) -> None:
        self.role = role
        self.running = False

    async def __aenter__(self) -> "Part":
        self.running = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running = False


@get("/things/{thing_id}", public=True)
async def one(thing_id: str) -> dict[str, str]:
    """One thing."""
    return {"id": thing_id}


@get("/mine")
async def mine(who: Principal) -> str:
    """Who sends it."""
    return who.id


def calling(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def test_a_service_in_a_test(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    """Without a socket: routes, tokens, problems, health and metrics; what it owns runs meanwhile."""
    owned, consumer = Part(), Part("consumer")
    service = Service("things", routes=[one, mine], owns=[owned, consumer], settings=SETTINGS, verifier=verifier)
    async with started(service), calling(service) as http:
        assert (owned.running, consumer.running) == (True, True)
        assert (await http.get("/things/a%20b")).json() == {"id": "a b"}
        assert (await http.head("/things/a")).status_code == 200
        assert (await http.get("/mine")).status_code == 401
        assert (await http.get("/mine", headers={"authorization": f"Bearer {issuer.token()}"})).json() == "user-1"
        assert (await http.get("/nowhere")).json()["type"] == "urn:backstay:problem:not-found"
        assert (await http.get("/health/ready")).json()["status"] == "UP"
        assert 'route="/things/{thing_id}"' in (await http.get("/metrics")).text

    assert (owned.running, consumer.running) == (False, False)


async def test_a_service_that_was_not_started() -> None:
    """It says so: a server that sends no lifespan events would serve it without its database."""
    async with calling(Service("things", routes=[one], settings=SETTINGS)) as http:
        with pytest.raises(RuntimeError, match="things has not been started"):
            await http.get("/things/a")


async def test_what_is_missing_fails_the_start() -> None:
    """The server gets every mistake at once."""
    settings = ServiceSettings(discovery_url="http://127.0.0.1:1/eureka")
    with pytest.raises(RuntimeError, match=r"(?s)things: .*TOKEN_ISSUER is not set.*PORT is not set"):
        async with started(Service("things", routes=[mine], settings=settings)):
            pass


async def test_a_service_in_another_application() -> None:
    """Mounted under a path, it routes by what is below it."""
    service = Service("things", routes=[one], settings=SETTINGS)

    class Started:
        async def __aenter__(self) -> None:
            self.running = started(service)
            await self.running.__aenter__()

        async def __aexit__(self, *how: Any) -> None:
            await self.running.__aexit__(*how)

    app = Starlette(routes=[StarletteMount("/kit", app=service)], lifespan=lifespan(Started()))
    async with started(app), calling(app) as http:
        assert (await http.get("/kit/things/a%20b")).json() == {"id": "a b"}
        assert (await http.get("/kit/nowhere")).status_code == 404


@pytest.mark.parametrize(
    ("path", "raw", "root", "local"),
    [
        ("/a b", b"/a%20b", "", ("/a b", b"/a%20b")),
        ("/a b", None, "", ("/a b", b"/a%20b")),
        ("/kit/a", b"/kit/a", "/kit", ("/a", b"/a")),
        ("/kit", b"/kit", "/kit", ("/", b"/")),
        ("/kit/a b", None, "/kit", ("/a b", b"/a%20b")),
        ("/a", b"/a", "/kit", ("/a", b"/a")),
    ],
)
def test_paths_below_a_root(path: str, raw: bytes | None, root: str, local: tuple[str, bytes]) -> None:
    """The router sees the path below `root_path`, as text and as it came."""
    found = local_scope({"type": "http", "path": path, "raw_path": raw, "root_path": root})

    assert (found["path"], found["raw_path"]) == local


def guest(owned: Any) -> Any:
    """An application of another framework."""

    async def see(request: StarletteRequest) -> JSONResponse:
        context = current()
        return JSONResponse(
            {
                "root": request.scope["root_path"],
                "trace": None if context is None else context.trace_id,
                "hurried": (remaining() or 99) <= 10,
                "state": getattr(request.state, "name", None),
            }
        )

    return Starlette(routes=[StarletteRoute("/see", see)], lifespan=lifespan(owned))


async def broken(scope: Any, receive: Any, send: Any) -> None:
    """An application that fails: at once, or after half of an answer."""
    if scope["path"].endswith("/late"):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
    raise ConnectionError("10.0.0.7")


async def test_an_application_in_a_service() -> None:
    """It runs with the service, under its trace and deadline; its errors are problems; routes go first."""
    owned = Part()

    @get("/admin/own", public=True)
    async def own() -> str:
        return "the service's"

    service = Service("things", routes=[own, mount("/admin", guest(owned))], settings=SETTINGS)
    async with started(service), calling(service) as http:
        assert owned.running
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        assert (await http.get("/admin/see", headers=headers)).json() == {
            "root": "/admin",
            "trace": TRACE,
            "hurried": True,
            "state": None,
        }
        assert (await http.get("/admin/own")).json() == "the service's"
        assert (await http.get("/admin/nowhere")).status_code == 404
        assert (await http.get("/administer")).json()["instance"] == "/administer"
        assert (await http.get("/admin/see", headers={"x-request-deadline-ms": "0"})).status_code == 504
        counted = (await http.get("/metrics")).text
        assert 'http_server_requests_total{method="",route="/admin/**",status="200"} 1.0' in counted
    assert not owned.running


async def test_an_application_in_a_service_under_our_own_server() -> None:
    """The same over a socket; a WebSocket is refused with the reason."""
    routes = [mount("/admin", guest(Part())), mount("/broken", broken)]
    service = Service("things", routes=routes, settings=SETTINGS)
    async with service.running() as running, Api(running.port) as api:
        assert (await api.ask("GET", "/admin/see")).json["root"] == "/admin"
        failed = await api.ask("GET", "/broken/at-once")
        assert (failed.status, failed.slug) == (503, "unavailable")
        with pytest.raises(HttpError):
            await api.ask("GET", "/broken/late")
        upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
        refused = await api.ask("GET", "/admin/see", headers=upgrade)

    assert (refused.status, refused.slug) == (501, "websocket-not-offered")
    assert "uvicorn or Granian" in refused.json["detail"]


async def websocket(app: Any, path: str) -> list[Any]:
    """Open a WebSocket, send one text, and return what the application sends."""
    events = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return events.pop(0) if events else {"type": "websocket.disconnect", "code": 1000}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
    await app(scope, receive, send)
    return sent


async def test_websockets_of_an_application() -> None:
    """A server that offers WebSockets gives them to the mounted application; elsewhere they are closed."""
    echo = FastAPI()

    @echo.websocket("/echo")
    async def answer(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(f"{await socket.receive_text()} {socket.scope['root_path']}")

    service = Service("things", routes=[one, mount("/live", echo)], settings=SETTINGS)
    async with started(service):
        sent = await websocket(service, "/live/echo")
        assert [message["type"] for message in sent[:2]] == ["websocket.accept", "websocket.send"]
        assert sent[1]["text"] == "hello /live"
        assert await websocket(service, "/things/a") == [{"type": "websocket.close", "code": 1001}]


@pytest.mark.parametrize("path", ["admin", "/admin/", "/admin/{x}", "/*"])
def test_a_mount_has_a_plain_path(path: str) -> None:
    """What isn't one is refused when it is written."""
    with pytest.raises(TypeError, match="mount"):
        mount(path, guest(Part()))


async def test_the_longest_path_is_taken() -> None:
    """One application may be under another's path."""
    registry = StaticRegistry({})
    routes = [mount("/a", guest(Part())), mount("/a/b", guest(Part()))]
    service = Service("things", routes=routes, settings=SETTINGS, prefix="/api", registry=registry)
    async with started(service), calling(service) as http:
        assert (await http.get("/api/a/see")).json()["root"] == "/api/a"
        assert (await http.get("/api/a/b/see")).json()["root"] == "/api/a/b"


async def test_workers_without_a_port_are_on_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only processes that share a port are workers of one service; tests that run beside each other are not."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for port, others_lock in ((0, "things-0"), (8080, "things-8080")):
        other, consumer = WorkerLock(others_lock), Part("consumer")
        assert other.acquire()
        settings = ServiceSettings(log_level="error", port=port)
        async with started(Service("things", owns=[consumer], settings=settings)):
            assert consumer.running is (port == 0)
        other.release()
