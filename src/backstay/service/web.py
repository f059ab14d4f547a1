"""Litestar's part: routing of paths with parameters, OPTIONS, 404 and 405. Endpoints do the rest themselves.

Nothing here sends an answer: it is left in the `Inbound`, and the front sends it.
"""

from collections.abc import Sequence
from typing import Any, cast

from litestar import Litestar
from litestar.connection import Request
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.response import Response

from backstay.errors import ConfigError
from backstay.service.endpoint import STATE, Endpoint, Inbound, Reply, refusal
from backstay.service.problems import BadRequest, MethodNotAllowed, NotFound, Problem
from backstay.service.requests import Disconnected, Receive, Scope, Send


async def _silent(scope: Scope, receive: Receive, send: Send) -> None:
    """An ASGI application that leaves the answer to the front."""


class _Silence(Response[None]):
    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        return _silent


class _Handler(HTTPRouteHandler):
    """Takes what `before_request` returns, an ASGI application, as it is."""

    async def to_response(self, app: Litestar, data: Any, request: Request[Any, Any, Any]) -> Any:  # noqa: ARG002
        return data


def litestar(endpoints: Sequence[Endpoint]) -> Litestar:
    """Return the application that routes to these endpoints."""
    paths: dict[str, dict[str, Endpoint]] = {}
    for endpoint in endpoints:
        known = paths.setdefault(endpoint.route.path, {}).setdefault(endpoint.route.method, endpoint)
        if known is not endpoint:
            raise ConfigError(f"two routes answer {endpoint.route.name}")
    return Litestar(
        [_handler(path, by_method) for path, by_method in paths.items()],
        openapi_config=None,
        logging_config=None,
        exception_handlers={Exception: _on_error},
    )


def _handler(path: str, endpoints: dict[str, Endpoint]) -> HTTPRouteHandler:
    """One Litestar handler for all methods of a path; it tells OPTIONS which those are."""
    methods = [*sorted(endpoints), "OPTIONS"]
    options = Reply(204, [(b"allow", _with_head(", ".join(methods)).encode())], b"")

    async def dispatch(request: Request[Any, Any, Any]) -> Any:
        scope = cast("Scope", request.scope)
        inbound: Inbound = scope[STATE]
        endpoint = endpoints.get(scope["method"])
        try:
            inbound.reply = options if endpoint is None else await endpoint(scope, cast(Any, request.receive), inbound)
        except Disconnected:
            return _silent
        except Exception as error:  # noqa: BLE001 - the client gets a problem, whatever happened
            inbound.reply = refusal(error, scope, inbound)
        return _silent

    async def never_called() -> None: ...

    named = path.replace("}", ":str}")
    return _Handler(named, http_method=cast(Any, methods), before_request=dispatch, status_code=204)(never_called)


def _on_error(request: Request[Any, Any, Any], error: Exception) -> Response[None]:
    scope = cast("Scope", request.scope)
    inbound: Inbound = scope[STATE]
    inbound.reply = refusal(_translated(error, scope), scope, inbound)
    return _Silence(None)


def _translated(error: Exception, scope: Scope) -> Exception:
    if not isinstance(error, HTTPException):
        return error
    if error.status_code == 404:
        return NotFound(f"there is nothing at {scope['path'][:200]}")
    if error.status_code == 405:
        allowed = {name.title(): _with_head(value) for name, value in (error.headers or {}).items()}
        return MethodNotAllowed(f"{scope['method']} is not possible at {scope['path'][:200]}", headers=allowed)
    if error.status_code == 400:
        return BadRequest(error.detail)
    return Problem(error.status_code, "refused", "Refused", error.detail)


def _with_head(methods: str) -> str:
    """Return the methods of a path in the order of `Allow`; where GET is possible, the front makes HEAD of it."""
    names = set(methods.split(", "))
    return ", ".join(sorted(names | {"HEAD"} if "GET" in names else names))


__all__ = ["litestar"]
