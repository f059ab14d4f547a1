"""Each middleware around a plain ASGI application."""

import asyncio
import json
from typing import Any

import pytest
from tests.backstay.asgi.conftest import calling

import backstay.resilience as r
from backstay.asgi import AccessLog, Deadlines, Identity, LoadShedding, ProblemDetails, Trace, lifespan
from backstay.auth import Forbidden, JwksCache, TokenVerifier
from backstay.http.problems import Conflict
from backstay.telemetry import current
from backstay.testing.issuer import TokenIssuer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class App:
    """Answers as told, and remembers what was in force."""

    def __init__(self, status: int = 200, body: bytes = b"ok", media: str = "text/plain", *, pieces: int = 1) -> None:
        self.status = status
        self.body = body
        self.media = media
        self.pieces = pieces
        self.error: Exception | None = None
        self.calls = 0
        self.left: float | None = None
        self.trace: str | None = None
        self.caller: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        self.left = r.remaining()
        context = current()
        self.trace = None if context is None else context.trace_id
        self.caller = scope.get("state", {}).get("principal")
        if self.error is not None:
            raise self.error
        headers = [(b"content-type", self.media.encode()), (b"x-own", b"1")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        size = -(-len(self.body) // self.pieces)
        for n in range(self.pieces):
            more = n < self.pieces - 1
            piece = self.body[n * size : (n + 1) * size]
            await send({"type": "http.response.body", "body": piece, "more_body": more})


@pytest.mark.parametrize(("given", "most"), [("1500", 1.5), ("9" * 400, 4.0), ("soon", 4.0), (None, 4.0)])
async def test_a_deadline_holds_inside(given: str | None, most: float) -> None:
    """The application has the time that the request brings, and no more than the limit."""
    app = App()
    async with calling(Deadlines(app, limit=4.0)) as http:
        await http.get("/", headers={} if given is None else {"x-request-deadline-ms": given})

    assert app.left is not None
    assert most - 1 < app.left <= most


async def test_a_request_that_arrives_too_late() -> None:
    """It is answered 504, and the application isn't called."""
    app = App()
    async with calling(Deadlines(app)) as http:
        reply = await http.get("/a", headers={"x-request-deadline-ms": "0"})

    assert (reply.status_code, reply.json()["type"], app.calls) == (504, "urn:backstay:problem:deadline-exceeded", 0)


async def test_what_serves_a_repetition_repeats_nothing() -> None:
    """A repetition of the caller is the only one."""
    made = 0

    @r.Retry(3, wait=0)
    async def dependency() -> None:
        nonlocal made
        made += 1
        raise ConnectionError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await dependency()

    async with calling(ProblemDetails(Deadlines(app))) as http:
        assert (await http.get("/", headers={"x-retry-attempt": "2"})).status_code == 503
        assert made == 1
        await http.get("/")
        assert made == 4


async def test_the_caller_is_verified(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    """A good token makes a principal, none makes None, a bad one is 401 as RFC 6750 has it."""
    app = App()
    async with calling(Identity(app, verifier=verifier)) as http:
        await http.get("/", headers={"authorization": f"Bearer {issuer.token()}"})
        assert app.caller.id == "user-1"
        await http.get("/")
        assert app.caller is None
        for bad in ("Bearer x.y.z", "Basic dTpw"):
            reply = await http.get("/", headers={"authorization": bad})
            assert reply.status_code == 401
            assert 'error="invalid_token"' in reply.headers["www-authenticate"]

    assert app.calls == 2


async def test_a_caller_may_be_required(verifier: TokenVerifier) -> None:
    """Then a request without a token is 401, except where it is public."""
    app = App()
    async with calling(Identity(app, verifier=verifier, required=True, public=["/health/"])) as http:
        assert (await http.get("/orders")).headers["www-authenticate"] == "Bearer"
        assert (await http.get("/health/live")).status_code == 200


async def test_keys_that_are_not_there_yet(issuer: TokenIssuer) -> None:
    """While no key is known, a token is neither good nor bad: 503."""

    async def fetch() -> bytes:
        raise ConnectionError("refused")

    unknown = TokenVerifier(issuer.issuer, issuer.audience, JwksCache(fetch))
    async with calling(Identity(App(), verifier=unknown)) as http:
        reply = await http.get("/", headers={"authorization": f"Bearer {issuer.token()}"})

    assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")


async def test_a_trace_goes_on_or_begins() -> None:
    """The work belongs to the caller's trace, or to one of its own."""
    app = App()
    async with calling(Trace(app)) as http:
        await http.get("/", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
        assert app.trace == TRACE
        await http.get("/")
        assert app.trace not in (None, TRACE)

    assert current() is None


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (Conflict("out-of-stock", "only 3 left", sku="tea"), 409, "out-of-stock"),
        (Forbidden(scope="orders:write"), 403, "forbidden"),
        (r.BulkheadFull("x"), 503, "unavailable"),
        (ConnectionError("10.0.0.7"), 503, "unavailable"),
        (TimeoutError(), 504, "deadline-exceeded"),
        (RuntimeError("password=hunter2"), 500, "internal-error"),
    ],
)
async def test_exceptions_become_problems(error: Exception, status: int, slug: str) -> None:
    """An exception is the problem that it is to the client, with the trace and without its own text if unforeseen."""
    app = App()
    app.error = error
    async with calling(Trace(ProblemDetails(app))) as http:
        reply = await http.get("/a", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})

    body = reply.json()
    assert (reply.status_code, body["type"]) == (status, f"urn:backstay:problem:{slug}")
    assert (body["instance"], body["traceId"]) == ("/a", TRACE)
    assert reply.headers["content-type"] == "application/problem+json"
    assert "hunter2" not in reply.text
    assert "10.0.0.7" not in reply.text


FIELDS = [{"loc": ["body", "lines", 0, "a/b"], "msg": "is wrong", "type": "x"}, {"loc": ["query", "q"], "msg": "too"}]


@pytest.mark.parametrize(
    ("app", "detail", "errors"),
    [
        (App(404, b'{"detail": "Not Found"}', "application/json"), None, None),
        (App(409, b'{"detail": "it has ended"}', "application/json", pieces=3), "it has ended", None),
        (App(418, b"short and stout", "text/plain; charset=utf-8"), "short and stout", None),
        (
            App(422, json.dumps({"detail": FIELDS}).encode(), "application/json"),
            "/lines/0/a~1b: is wrong; /query/q: too",
            [{"pointer": "/lines/0/a~1b", "reason": "is wrong"}, {"pointer": "/query/q", "reason": "too"}],
        ),
    ],
)
async def test_error_answers_are_rewritten(app: App, detail: str | None, errors: Any) -> None:
    """An error in JSON or text is rewritten with its details; its other headers stay."""
    async with calling(ProblemDetails(app)) as http:
        reply = await http.get("/a")

    body = reply.json()
    assert (reply.status_code, body["status"], body.get("detail"), body.get("errors")) == (
        app.status,
        app.status,
        detail,
        errors,
    )
    assert (reply.headers["content-type"], reply.headers["x-own"]) == ("application/problem+json", "1")
    assert int(reply.headers["content-length"]) == len(reply.content)


@pytest.mark.parametrize(
    "app",
    [
        App(200, b'{"detail": "fine"}', "application/json"),
        App(404, b'{"type": "about:blank"}', "application/problem+json"),
        App(500, b"<h1>Error</h1>", "text/html"),
        App(500, b"x" * 100_000, "text/plain", pieces=5),
    ],
)
async def test_other_answers_pass(app: App) -> None:
    """Good answers, problems, pages and what is too long pass as they are."""
    async with calling(ProblemDetails(app)) as http:
        reply = await http.get("/")

    assert (reply.status_code, reply.content, reply.headers["content-type"]) == (app.status, app.body, app.media)


async def test_an_answer_that_broke_off() -> None:
    """An error after the answer has begun can't become a problem: it goes on to the server."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("broken")

    async with calling(ProblemDetails(app)) as http:
        with pytest.raises(RuntimeError, match="broken"):
            await http.get("/")


async def test_requests_beyond_the_bound_are_refused() -> None:
    """They don't reach the application, and say that a repetition makes it worse."""
    arrived, go = asyncio.Event(), asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        arrived.set()
        await go.wait()
        await App()(scope, receive, send)

    shedding = LoadShedding(slow, most=1)
    async with calling(shedding) as http:
        first = asyncio.create_task(http.get("/"))
        await arrived.wait()
        refused = await http.get("/")
        go.set()

        assert ((await first).status_code, refused.status_code) == (200, 503)
    assert (refused.headers["x-do-not-retry"], shedding.active, shedding.shed) == ("1", 0, 1)


async def test_one_line_a_request(
    issuer: TokenIssuer, verifier: TokenVerifier, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The line has what a service's has; a request without an answer is 500 if the application failed."""
    app = App(201)
    async with calling(Trace(AccessLog(Identity(app, verifier=verifier), service="things"))) as http:
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "authorization": f"Bearer {issuer.token()}"}
        await http.post("/things", headers=headers)
        app.error = RuntimeError("broken")
        with pytest.raises(RuntimeError):
            await http.get("/things")

    first, second = map(json.loads, capfdbinary.readouterr().out.splitlines())
    assert {name: first[name] for name in ("event", "service", "method", "path", "status", "trace_id", "who")} == {
        "event": "http.request",
        "service": "things",
        "method": "POST",
        "path": "/things",
        "status": 201,
        "trace_id": TRACE,
        "who": "user-1",
    }
    assert (second["status"], second["level"]) == (500, "warning")


class Part:
    """Something that is owned."""

    def __init__(self, name: str, order: list[str]) -> None:
        self.name = name
        self.order = order

    async def __aenter__(self) -> None:
        self.order.append(f"+{self.name}")

    async def __aexit__(self, *_: object) -> None:
        self.order.append(f"-{self.name}")


async def test_what_is_owned_is_left_in_reverse() -> None:
    """Parts are entered in order and left in reverse."""
    order: list[str] = []
    async with lifespan(Part("db", order), Part("relay", order))(None):
        assert order == ["+db", "+relay"]

    assert order == ["+db", "+relay", "-relay", "-db"]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_other_scopes_pass(verifier: TokenVerifier, kind: str) -> None:
    """What is no HTTP request reaches the application untouched."""
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    wrapped = Trace(AccessLog(LoadShedding(Deadlines(ProblemDetails(Identity(app, verifier=verifier)))), service="a"))
    await wrapped({"type": kind}, None, None)  # type: ignore[arg-type]

    assert seen == [kind]
