"""Paths lead to endpoints by one rule: the most literal template, and no path with two meanings."""

from typing import Any

import pytest

from backstay.errors import ConfigError
from backstay.http.framing import RequestHead
from backstay.http.problems import BadRequest, MethodNotAllowed, NotFound
from backstay.service import delete, get, post
from backstay.service.endpoint import Endpoint, Inbound, Limits, Reply
from backstay.service.exchange import scope_of
from backstay.service.router import Router
from backstay.service.routing import Route
from backstay.telemetry.trace import TraceContext


@get("/orders", public=True)
async def page() -> str:
    return "page"


@post("/orders", public=True)
async def create() -> str:
    return "create"


@get("/orders/mine", public=True)
async def mine() -> str:
    return "mine"


@get("/orders/{order_id}", public=True)
async def find(order_id: str) -> str:
    return f"find {order_id}"


@delete("/orders/{number}", public=True)
async def cancel(number: int) -> str:
    return f"cancel {number}"


@get("/{kind}/{name}/lines", public=True)
async def lines(name: str, kind: str) -> str:
    return f"lines of {kind} {name}"


@get("/orders/{order_id}/{part}", public=True)
async def part(order_id: str, part: str) -> str:
    return f"{part} of {order_id}"


ROUTES = (page, create, mine, find, cancel, lines, part)


def router(*routes: Route) -> Router:
    return Router([Endpoint(route, limits=Limits(), verifier=None) for route in routes])


async def answer(method: str, target: str, *routes: Route) -> Reply:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    head = RequestHead.__new__(RequestHead)
    head.method, head.target, head.version, head.fields = method.encode(), target.encode(), "1.1", []
    scope = scope_of(head, None, None)
    return await router(*(routes or ROUTES)).find(scope)(scope, receive, Inbound({}, TraceContext.new()))


@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/orders", b'"page"'),
        ("POST", "/orders", b'"create"'),
        ("GET", "/orders/", b'"page"'),
        ("GET", "/orders/mine", b'"mine"'),
        ("GET", "/orders/%6dine", b'"mine"'),
        ("GET", "/orders/mine/", b'"mine"'),
        ("GET", "/orders/17", b'"find 17"'),
        ("GET", "/orders/a%20b", b'"find a b"'),
        ("GET", "/orders/%C3%A9", '"find é"'.encode()),
        ("DELETE", "/orders/17", b'"cancel 17"'),
        ("GET", "/baskets/7/lines", b'"lines of baskets 7"'),
        ("GET", "/orders/7/lines", b'"lines of 7"'),
    ],
)
async def test_the_most_literal_template_answers(method: str, target: str, expected: bytes) -> None:
    """Segment by segment from the left; a slash at the end and escapes that mean nothing special make no difference."""
    assert (await answer(method, target)).body == expected


@pytest.mark.parametrize(
    "target",
    [
        "//orders",
        "/orders//17",
        "/orders/%2F",
        "/orders%2Fmine",
        "/orders/.",
        "/orders/../x",
        "/orders/%2e%2e/x",
        "/orders/a;b",
        "/orders/%3b",
        "/orders/%00",
        "/orders/%FF",
        "/orders/%5c",
        "/orders/%zz",
    ],
)
async def test_a_path_with_two_meanings_is_refused(target: str) -> None:
    """As at the gateway: what two servers could read differently reaches no handler."""
    with pytest.raises(BadRequest, match="the path"):
        await answer("GET", target)


async def test_what_is_not_there() -> None:
    """No template: 404. A template without the method: 405, with those it has; a more general template isn't tried."""
    with pytest.raises(NotFound, match="there is nothing at /nothing"):
        await answer("GET", "/nothing")
    with pytest.raises(MethodNotAllowed) as refused:
        await answer("DELETE", "/orders/mine")

    assert refused.value.headers == {"Allow": "GET, HEAD, OPTIONS"}


async def test_options_lists_the_methods() -> None:
    """Of all templates that differ in the names of their variables only."""
    reply = await answer("OPTIONS", "/orders/17")

    assert (reply.status, reply.headers) == (204, [(b"allow", b"DELETE, GET, HEAD, OPTIONS")])


def test_two_routes_with_one_address_are_refused() -> None:
    """Also when only the names of their variables differ."""

    async def other(name: str) -> str:
        return name

    with pytest.raises(ConfigError, match=r"two routes answer GET /orders/\{name\}"):
        router(find, get("/orders/{name}", public=True)(other))


def test_a_path_that_is_no_template_is_refused() -> None:
    """With its name, when the service is built."""

    async def twice(name: str) -> str:
        return name

    with pytest.raises(ConfigError, match=r"GET /a/\{name\}/\{name\}"):
        router(get("/a/{name}/{name}", public=True)(twice))
