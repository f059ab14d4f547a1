"""What a handler takes is decided by the types of its parameters; their names are free."""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pytest

from backstay.auth import TokenVerifier
from backstay.service import Body, Conditions, IdempotencyKey, Principal, Request, Service, ServiceSettings, get, post
from backstay.service.endpoint import Endpoint, Inbound, Limits
from backstay.service.injection import inject
from backstay.telemetry.trace import TraceContext
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer


class Order(msgspec.Struct, tag="order"):
    number: int


class Refund(msgspec.Struct, tag="refund"):
    number: int


@dataclass
class Plain:
    number: int


class Typed(TypedDict):
    number: int


class Colour(Enum):
    RED = "red"


def kind_of(hint: Any, name: str = "it") -> str:
    """Return the field of `Injected` that the parameter is in."""
    namespace: dict[str, Any] = {"hint": hint}
    exec(f"async def handler({name}: hint) -> None: ...", namespace)
    found = inject("GET /", namespace["handler"], ())
    fields = {field: getattr(found, field) for field in ("caller", "key", "conditions", "request", "body", "query")}
    return next(field for field, value in fields.items() if value)


@pytest.mark.parametrize(
    ("hint", "kind"),
    [
        (Principal, "caller"),
        (Principal | None, "caller"),
        (IdempotencyKey, "key"),
        (Conditions, "conditions"),
        (Request, "request"),
        (Order, "body"),
        (Order | Refund, "body"),
        (Order | None, "body"),
        (list[Order], "body"),
        (dict[str, int], "body"),
        (Plain, "body"),
        (Typed, "body"),
        (bytes, "body"),
        (Body[int], "body"),
        (Body[list[int]], "body"),
        (Body[Any], "body"),
        (int, "query"),
        (str | None, "query"),
        (list[str], "query"),
        (UUID, "query"),
        (Colour, "query"),
        (Literal["a", "b"], "query"),
        (Annotated[int, msgspec.Meta(ge=1)], "query"),
        (Any, "query"),
    ],
)
def test_types_decide(hint: Any, kind: str) -> None:
    """A type that only one part of a request can have is that part; everything else is in the query."""
    assert kind_of(hint) == kind


@pytest.mark.parametrize("name", ["key", "who", "body", "request", "conditions"])
def test_names_are_free(name: str) -> None:
    """No name is reserved: a query parameter may have any."""
    assert kind_of(str, name) == "query"
    assert kind_of(int | None, name) == "query"


@pytest.mark.parametrize("hint", [list[int], Any, set[str], list[int] | None])
def test_a_parameter_called_body_that_may_be_either(hint: Any) -> None:
    """What was the body by its name and would be a query parameter by its type has to say which."""
    with pytest.raises(TypeError, match=r"body could be the body or a query parameter; write Body\[...\]"):
        kind_of(hint, "body")
    assert kind_of(Body[hint], "body") == "body"


async def two_bodies(order: Order, refund: Refund) -> None: ...
async def two_callers(buyer: Principal, seller: Principal) -> None: ...
async def one_of_two(it: Principal | Request) -> None: ...


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        (two_bodies, "order and refund would both be the body"),
        (two_callers, "buyer and seller would both be the caller"),
        (one_of_two, "it is one of several things"),
    ],
)
def test_what_is_ambiguous_is_refused_by_name(handler: Any, said: str) -> None:
    """A handler that takes one thing twice is refused when it is decorated."""
    with pytest.raises(TypeError, match=said):
        post("/orders")(handler)


class Seen(msgspec.Struct):
    """What a handler was given."""

    number: int
    buyer: str
    operation: str
    agent: str | None
    tags: tuple[str, ...] | None
    key: str
    body: int
    who: str | None


@post("/orders/{request}", status=200)
async def place(
    request: int,
    order: Order,
    buyer: Principal,
    once: IdempotencyKey,
    came: Request,
    only_if: Conditions,
    key: str,
    body: int = 3,
    who: str | None = None,
) -> Seen:
    """Place an order."""
    tags = only_if.if_match if isinstance(only_if.if_match, tuple) else None
    return Seen(request + order.number, buyer.id, once.key, came.header("user-agent"), tags, key, body, who)


@post("/sum", public=True, status=200)
async def total(numbers: Body[list[int]]) -> int:
    """Add numbers."""
    return sum(numbers)


@get("/label", public=True)
async def label(key: str, request: list[int] = []) -> str:  # noqa: B006
    """Return what was given."""
    return f"{key} {request}"


async def test_a_handler_is_given_what_its_types_say(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    """Body, caller, key, conditions, headers, path and query arrive under the names that the handler chose."""
    settings = ServiceSettings(log_level="error")
    service = Service("a", routes=[total, label], settings=settings, verifier=verifier)
    async with service.running() as running, Api(running.port, token=issuer.token()) as api:
        assert (await api.ask("POST", "/sum", [1, 2, 3])).json == 6
        assert (await api.ask("POST", "/sum?numbers=1", [1])).pointers == ["/query/numbers"]
        assert (await api.ask("GET", "/label?key=a&request=1&request=2")).json == "a [1, 2]"


async def test_everything_at_once(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    """One handler may take all of it."""
    headers = {
        b"authorization": b"Bearer " + issuer.token().encode(),
        b"idempotency-key": b"k-1",
        b"user-agent": b"test",
        b"if-match": b'"7"',
    }
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/orders/40",
        "path_params": {"request": "40"},
        "query_string": b"key=q&who=w",
        "headers": list(headers.items()),
    }

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"type": "order", "number": 2}', "more_body": False}

    endpoint = Endpoint(place, limits=Limits(), verifier=verifier)
    reply = await endpoint(scope, receive, Inbound(headers, TraceContext.new()))

    assert msgspec.json.decode(reply.body, type=Seen) == Seen(42, "user-1", "k-1", "test", ('"7"',), "q", 3, "w")
