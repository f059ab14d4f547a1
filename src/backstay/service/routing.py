"""Routes: a decorator turns a coroutine function into a `Route`; its parameters say what the request must bring.

| parameter                | is                                                                     |
|--------------------------|------------------------------------------------------------------------|
| `body: T`                | the JSON body, checked against the msgspec struct T                    |
| `body: bytes`            | the body as it came, of whatever media type (hide such a route)        |
| `who: Principal`         | the owner of the bearer token; `Principal | None` on a public route    |
| `key: IdempotencyKey`    | the `Idempotency-Key` header, bound to caller and operation            |
| `conditions: Conditions` | `If-Match` and `If-None-Match`, for a handler that changes what has an ETag |
| `request: Request`       | headers and peer                                                       |
| a name in the path       | that part of the path: `{order_id}`                                    |
| any other                | a query parameter; optional if it has a default                        |
"""

import inspect
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from backstay.service.answers import Answer

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])

Answers = Mapping[int, str | tuple[Any, str]]
"""By status: what it means, or the type of its body and what it means."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a handler that is taken from the path or the query."""

    name: str
    type: Any
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """True if the request must bring it."""
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A coroutine function, where it answers, and who may ask."""

    method: Method
    path: str
    handler: Callable[..., Coroutine[Any, Any, Any]]
    scope: str | None
    role: str | None
    public: bool
    status: int
    max_body: int | None
    hidden: bool
    tolerant: bool
    takes_body: Any
    takes_who: Literal["no", "yes", "if there"]
    takes_key: bool
    takes_request: bool
    takes_conditions: bool
    path_parameters: tuple[Parameter, ...]
    query_parameters: tuple[Parameter, ...]
    returns: Any
    internal: bool = False
    answers: Answers = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The route in metrics, logs and idempotency claims: method and path template."""
        return f"{self.method} {self.path}"

    @property
    def summary(self) -> str:
        """The first line of the handler's docstring, else its name in words."""
        written = inspect.getdoc(self.handler)
        return written.splitlines()[0] if written else self.handler.__name__.replace("_", " ").capitalize()

    def under(self, prefix: str) -> "Route":
        """Return the same route under a path prefix."""
        return replace(self, path=prefix.rstrip("/") + self.path) if prefix else self

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the handler itself, as a test does."""
        return await self.handler(*args, **kwargs)


class _Decorator(Protocol):
    def __call__(
        self,
        path: str,
        *,
        scope: str | None = None,
        role: str | None = None,
        public: bool = False,
        status: int | None = None,
        max_body: int | None = None,
        hidden: bool = False,
        tolerant: bool | None = None,
        answers: Answers | None = None,
        internal: bool = False,
    ) -> Callable[[Handler], Route]: ...


def _decorator(method: Method) -> _Decorator:
    def route(
        path: str,
        *,
        scope: str | None = None,
        role: str | None = None,
        public: bool = False,
        status: int | None = None,
        max_body: int | None = None,
        hidden: bool = False,
        tolerant: bool | None = None,
        answers: Answers | None = None,
        internal: bool = False,
    ) -> Callable[[Handler], Route]:
        """Answer requests for `path` with the decorated coroutine function.

        Args:
            path: begins with `/`; `{name}` is a part that the handler takes by that name.
            scope: what the caller's token must contain.
            role: which role the caller must have.
            public: no token is needed. Otherwise every route needs one.
            status: of a plain result; 204 if the handler returns None.
            max_body: bytes; the service's limit by default.
            hidden: left out of the OpenAPI document.
            tolerant: unknown fields, unknown query parameters and repeated names are read past, as between services
                of one system, where the caller may be newer; else they are refused. By default on hidden and internal
                routes.
            answers: what the handler answers besides `status` and the usual errors, for the OpenAPI document: the
                meaning of each status, or the type of its body and the meaning. One below 400 without a type has the
                body of `status`.
            internal: for other services only; the token must have been issued to a service for calls of this one.
        """
        if public and (scope or role or internal):
            raise TypeError(f"{method} {path}: a public route asks for no scope or role, and is not internal")

        def decorate(handler: Handler) -> Route:
            reads_past = internal or hidden if tolerant is None else tolerant
            made = _route(method, path, handler, scope, role, public, status, max_body, hidden, reads_past)
            return replace(made, internal=internal, answers=answers or {})

        return decorate

    return route


def _route(
    method: Method,
    path: str,
    handler: Callable[..., Coroutine[Any, Any, Any]],
    scope: str | None,
    role: str | None,
    public: bool,
    status: int | None,
    max_body: int | None,
    hidden: bool,
    tolerant: bool,
) -> Route:
    where = f"{method} {path} ({handler.__qualname__})"
    if not path.startswith("/"):
        raise TypeError(f"{where}: a path begins with /")
    if not inspect.iscoroutinefunction(handler):
        raise TypeError(f"{where}: a handler is a coroutine function (async def)")
    signature = inspect.signature(handler)
    hints = get_type_hints(handler, include_extras=True)
    missing = [name for name in signature.parameters if name not in hints]
    if missing:
        raise TypeError(f"{where}: annotate {', '.join(missing)}")
    names = _PLACEHOLDER.findall(path)
    if unknown := [name for name in names if name not in signature.parameters]:
        raise TypeError(f"{where}: takes no parameter {', '.join(unknown)} of its path")
    special = {name for name in signature.parameters if name in _SPECIAL and name not in names}
    others = [Parameter(n, hints[n], p.default) for n, p in signature.parameters.items() if n not in special]
    returns = _unwrapped(hints.get("return", NoneType))
    optional_who = "who" in special and NoneType in get_args(hints["who"])
    if public and "who" in special and not optional_who:
        raise TypeError(f"{where}: on a public route `who` is `Principal | None`")
    return Route(
        method=method,
        path=path,
        handler=handler,
        scope=scope,
        role=role,
        public=public,
        status=status or (204 if returns is NoneType else 200),
        max_body=max_body,
        hidden=hidden,
        tolerant=tolerant,
        takes_body=hints["body"] if "body" in special else None,
        takes_who="no" if "who" not in special else "if there" if optional_who else "yes",
        takes_key="key" in special,
        takes_request="request" in special,
        takes_conditions="conditions" in special,
        path_parameters=tuple(p for p in others if p.name in names),
        query_parameters=tuple(p for p in others if p.name not in names),
        returns=returns,
    )


def _unwrapped(kind: Any) -> Any:
    """`Answer[T]` answers a T; a union of such answers the union."""
    if kind is None:
        return NoneType
    origin = get_origin(kind)
    if origin is Answer:
        return _unwrapped(get_args(kind)[0])
    if kind is Answer:
        return Any
    if origin in (Union, UnionType):
        return Union[tuple(_unwrapped(part) for part in get_args(kind))]  # noqa: UP007 - built at run time
    return kind


_SPECIAL = frozenset({"body", "conditions", "who", "key", "request"})

get = _decorator("GET")
post = _decorator("POST")
put = _decorator("PUT")
patch = _decorator("PATCH")
delete = _decorator("DELETE")

__all__ = ["Handler", "Method", "Parameter", "Route", "delete", "get", "patch", "post", "put"]
