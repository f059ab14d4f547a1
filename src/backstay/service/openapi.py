"""The OpenAPI document of a service, made by Litestar from signatures that say what each route takes and gives."""

import inspect
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from litestar import Litestar
from litestar.enums import MediaType
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody

from backstay.service.problems import MEDIA_TYPE, ProblemBody
from backstay.service.routing import Route

_KEYWORD = inspect.Parameter.KEYWORD_ONLY


def openapi(name: str, version: str, routes: Sequence[Route]) -> bytes:
    """Return the document, as JSON."""
    token = SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")
    config = OpenAPIConfig(name, version, components=Components(security_schemes={"token": token}))
    app = Litestar(
        [_described(route) for route in routes if not route.hidden], openapi_config=config, logging_config=None
    )
    document = app.openapi_schema.to_schema()
    _close(document["components"].get("schemas", {}), routes)
    for route in routes:
        if route.internal and not route.hidden:
            document["paths"][route.path][route.method.lower()]["x-internal"] = True
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


def _close(schemas: dict[str, Any], routes: Sequence[Route]) -> None:
    """Declare that strict bodies take no other fields; what answers are made of stays open, for they may grow."""
    taken = _reachable(schemas, [route.takes_body for route in routes if not route.tolerant])
    given = _reachable(schemas, [route.returns for route in routes] + [r.takes_body for r in routes if r.tolerant])
    for name in taken - given:
        if schemas[name].get("type") == "object" and "properties" in schemas[name]:
            schemas[name]["additionalProperties"] = False


def _reachable(schemas: dict[str, Any], kinds: list[Any]) -> set[str]:
    """Names of all schemas that these types are made of."""
    known = [kind for kind in kinds if kind not in (None, bytes, Any)]
    _, components = msgspec.json.schema_components(known, schema_hook=lambda _: {})
    return components.keys() & schemas.keys()


def _described(route: Route) -> HTTPRouteHandler:
    return HTTPRouteHandler(
        route.path.replace("}", ":str}"),
        http_method=[route.method],
        status_code=route.status,
        media_type=MediaType.JSON,
        summary=route.summary,
        description=inspect.getdoc(route.handler),
        operation_id=route.handler.__name__,
        name=route.name,
        responses=_answers(route),
        security=[] if route.public else [{"token": [route.scope] if route.scope else []}],
        tags=[_tag(route.path)],
        sync_to_thread=False,
    )(_stub(route))


def _stub(route: Route) -> Any:
    """Return a function that does nothing, with the signature that Litestar reads."""

    def stub() -> None: ...

    empty = inspect.Parameter.empty
    taken: dict[str, tuple[Any, Any]] = {p.name: (_marked(FromPath, p.type), empty) for p in route.path_parameters}
    taken |= {p.name: (_marked(FromQuery, p.type), _hashable(p.default)) for p in route.query_parameters}
    if route.takes_body is not None:
        taken["data"] = (_marked(JSONBody, route.takes_body), empty)
    if route.takes_key:
        header = HeaderParameter(name="Idempotency-Key", description="New for each operation; the same to repeat it.")
        taken["idempotency_key"] = (Annotated[str, header], empty)
    parameters = [inspect.Parameter(n, _KEYWORD, annotation=t, default=d) for n, (t, d) in taken.items()]
    returns = None if route.status == 204 else route.returns
    stub.__signature__ = inspect.Signature(parameters, return_annotation=returns)  # type: ignore[attr-defined]
    stub.__annotations__ = {n: t for n, (t, _) in taken.items()} | {"return": returns}
    stub.__module__ = __name__
    return stub


def _marked(marker: Any, kind: Any) -> Any:
    """Return the type with Litestar's note of where the value comes from."""
    return marker[kind]


def _hashable(default: Any) -> Any:
    """Litestar keeps defaults in sets."""
    return tuple(default) if isinstance(default, (list, set)) else default


def _answers(route: Route) -> dict[int, ResponseSpec]:
    """Every answer besides the usual one: the errors of the kit and of the gateway, and what the route names itself."""
    described = _errors(route) | dict(route.answers)
    return {status: _answer(route, status, described[status]) for status in sorted(described)}


def _errors(route: Route) -> dict[int, str]:
    errors = {
        400: "Malformed",
        429: "Too many requests, or too many tries",
        500: "Something went wrong",
        502: "No usable answer from the service",
        503: "Something needed is away",
        504: "The time for an answer is over",
    }
    if not route.public:
        errors |= {401: "No valid access token", 403: "The token does not allow it"}
    elif route.method == "POST":
        errors[401] = "The credentials are wrong"
    if route.path_parameters:
        errors[404] = "Nothing there, or nothing you may see"
    if route.method != "GET":
        errors |= {
            408: "The body came too slowly",
            409: "The state forbids it",
            412: "If-Match or If-None-Match does not hold",
            413: "The body is too large",
            415: "The body is not JSON, or has a coding",
        }
    if route.takes_body is not None or route.query_parameters or not route.tolerant:
        errors[422] = "A field or parameter is wrong, or not known"
    return errors


def _answer(route: Route, status: int, meaning: str) -> ResponseSpec:
    if status >= 400:
        return ResponseSpec(ProblemBody, description=meaning, media_type=MEDIA_TYPE, generate_examples=False)
    kind = None if status in (204, 304) else route.returns
    return ResponseSpec(kind, description=meaning, media_type=MediaType.JSON, generate_examples=False)


def _tag(path: str) -> str:
    parts = [part for part in path.split("/") if part and not part.startswith("{") and part not in ("api", "v1")]
    return parts[0] if parts else "root"


__all__ = ["openapi"]
