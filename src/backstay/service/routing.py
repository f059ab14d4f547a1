"""Routes: a decorator turns a coroutine function into a `Route`; the types of its parameters say what it needs.

| parameter                    | value                                                                  |
|------------------------------|------------------------------------------------------------------------|
| a name in the path           | that part of the path: `{order_id}`                                    |
| `Principal`                  | the owner of the bearer token; `Principal | None` on a public route    |
| `IdempotencyKey`             | the `Idempotency-Key` header, bound to caller and operation            |
| `Conditions`                 | `If-Match` and `If-None-Match`, for a change of what has an ETag       |
| `Request`                    | headers and peer                                                       |
| a struct, dataclass, `dict`, | the JSON body, checked against that type                               |
| or a list of them            |                                                                        |
| `bytes`                      | the body as it came, of any media type (hide such a route)             |
| `Body[T]`                    | the JSON body, where T could be a query parameter, too: `Body[int]`    |
| any other                    | a query parameter; optional if it has a default                        |

Names are free. A handler takes at most one of each of these but parts of the path and query parameters.
"""

import inspect
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from backstay.asgi.answers import Answer
from backstay.service.injection import Injected, inject

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
Handler = TypeVar("Handler", bound=Callable[..., Coroutine[Any, Any, Any]])

Answers = Mapping[int, str | tuple[Any, str]]
"""By status: what it means, or the type of its body and what it means."""

_PLACEHOLDER = re.compile(r"\{(\w+)\}")


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
    injected: Injected
    returns: Any
    internal: bool = False
    answers: Answers = field(default_factory=dict)

    @property
    def body_type(self) -> Any:
        """The type of the body that the handler takes; None if it takes none."""
        body = self.injected.body
        return None if body is None else body.type

    @property
    def needs_caller(self) -> bool:
        """Whether a bearer token is read, if only where there is one."""
        return not self.public or self.injected.caller is not None

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
    injected = inject(where, handler, _PLACEHOLDER.findall(path))
    returns = _unwrapped(get_type_hints(handler, include_extras=True).get("return", NoneType))
    caller = injected.caller
    if public and caller is not None and not injected.caller_is_optional:
        raise TypeError(f"{where}: on a public route `{caller.name}` is `Principal | None`")
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
        injected=injected,
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


get = _decorator("GET")
post = _decorator("POST")
put = _decorator("PUT")
patch = _decorator("PATCH")
delete = _decorator("DELETE")

__all__ = ["Handler", "Method", "Route", "delete", "get", "patch", "post", "put"]
