"""The OpenAPI 3.1 document of a service: its routes, with the JSON schemas that msgspec makes of their types."""

import inspect
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from backstay.http.problems import MEDIA_TYPE, ProblemBody
from backstay.service.routing import Route

JSON = "application/json"
_REF = "#/components/schemas/{name}"
_WITHOUT_SCHEMA = (None, bytes, Any)  # types without a schema
_KEY_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "New for each operation; the same to repeat it.",
    "schema": {"type": "string"},
    "required": True,
}

Json = dict[str, Any]


def openapi(name: str, version: str, routes: Sequence[Route]) -> bytes:
    """Return the document, as JSON."""
    shown = [route for route in routes if not route.hidden]
    schemas = _Schemas(shown)
    paths: dict[str, Json] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    document = {
        "openapi": "3.1.0",
        "info": {"title": name, "version": version},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
    }
    return msgspec.json.format(msgspec.json.encode(document), indent=1)


class _Schemas:
    """The schema of each type of these routes; structs and enums are components."""

    def __init__(self, routes: Sequence[Route]) -> None:
        kinds = [ProblemBody]
        for route in routes:
            kinds += [parameter.type for parameter in (*route.injected.path, *route.injected.query)]
            kinds += [kind for kind in (route.body_type, *_bodies(route).values()) if kind not in _WITHOUT_SCHEMA]
        self._index = {repr(kind): n for n, kind in enumerate(kinds)}
        self._schemas, self.components = msgspec.json.schema_components(kinds, schema_hook=_foreign, ref_template=_REF)
        for component in self.components.values():
            if "description" in component:  # what follows the first paragraph is for those who read the code
                component["description"] = component["description"].partition("\n\n")[0]
        times = _Times(self.components)
        for schema, info in zip(self._schemas, msgspec.inspect.multi_type_info(kinds), strict=True):
            times.mark(schema, info)
        self._close(routes)

    def of(self, kind: Any) -> Json:
        """Return the schema of a type that the routes name."""
        return self._schemas[self._index[repr(kind)]]

    def _close(self, routes: Sequence[Route]) -> None:
        """Declare that strict bodies take no other fields; what answers are made of stays open, for they may grow."""
        taken = _reachable([route.body_type for route in routes if not route.tolerant])
        given = _reachable([kind for route in routes for kind in _bodies(route).values()])
        given |= _reachable([route.body_type for route in routes if route.tolerant])
        for name in taken - given:
            if "properties" in self.components[name]:
                self.components[name]["additionalProperties"] = False


def _foreign(_: type) -> Json:
    """Return the schema of a type that msgspec doesn't know: anything."""
    return {}


class _Times:
    """Gives the schemas of times their format, which msgspec writes only for those that must have a zone."""

    def __init__(self, components: Json) -> None:
        self._components = components
        self._visited: set[str] = set()

    def mark(self, schema: Json, info: msgspec.inspect.Type) -> None:
        """Mark the times in a schema, which is that of `info`, and in the components that it refers to."""
        match info:
            case msgspec.inspect.DateTimeType() if schema.get("type") == "string":
                schema["format"] = "date-time"
            case msgspec.inspect.StructType(fields=fields) if "$ref" in schema:
                name = schema["$ref"].rpartition("/")[2]
                if name not in self._visited:
                    self._visited.add(name)
                    properties = self._components[name].get("properties", {})
                    for field in fields:
                        if field.encode_name in properties:
                            self.mark(properties[field.encode_name], field.type)
            case msgspec.inspect.CollectionType(item_type=item) | msgspec.inspect.VarTupleType(item_type=item):
                self.mark(schema["items"], item)
            case msgspec.inspect.DictType(value_type=value) if "additionalProperties" in schema:
                self.mark(schema["additionalProperties"], value)
            case msgspec.inspect.UnionType(types=types):
                for each, alternative in zip(types, schema.get("anyOf", [schema]), strict=False):
                    self.mark(alternative, each)


def _reachable(kinds: Sequence[Any]) -> set[str]:
    """Return the names of all components that these types are made of."""
    known = [kind for kind in kinds if kind not in _WITHOUT_SCHEMA]
    return set(msgspec.json.schema_components(known, schema_hook=_foreign)[1])


def _operation(route: Route, schemas: _Schemas) -> Json:
    parameters = [
        {"name": each.name, "in": "path", "schema": schemas.of(each.type), "required": True}
        for each in route.injected.path
    ]
    parameters += [_query_parameter(each.name, each.default, schemas.of(each.type)) for each in route.injected.query]
    if route.injected.key is not None:
        parameters.append(_KEY_PARAMETER)
    operation: Json = {
        "tags": [_tag(route.path)],
        "summary": route.summary,
        "description": inspect.getdoc(route.handler) or route.summary,
        "operationId": route.handler.__name__,
        "parameters": parameters,
        "responses": _responses(route, schemas),
        "security": [] if route.public else [{"token": [route.scope] if route.scope else []}],
    }
    if route.body_type is not None:
        body = {} if route.body_type in _WITHOUT_SCHEMA else schemas.of(route.body_type)
        operation["requestBody"] = {"content": {JSON: {"schema": body}}, "required": True}
    if route.internal:
        operation["x-internal"] = True
    return operation


def _query_parameter(name: str, default: Any, schema: Json) -> Json:
    found: Json = {"name": name, "in": "query", "schema": schema, "required": default is inspect.Parameter.empty}
    if default is not inspect.Parameter.empty and default is not None:
        found["schema"] = {**schema, "default": msgspec.to_builtins(default)}
    return found


def _bodies(route: Route) -> Mapping[int, Any]:
    """Return the type of the body of each answer below 400."""
    named = {status: answer[0] for status, answer in route.answers.items() if not isinstance(answer, str)}
    usual = _without(route.returns, list(named.values()))
    bodies = {route.status: usual}
    for status in route.answers:
        if status < 400:
            bodies[status] = named.get(status, usual)
    return {status: kind for status, kind in bodies.items() if status not in (204, 304) and kind is not type(None)}


def _without(kind: Any, others: Sequence[Any]) -> Any:
    """Return a union without the types that other answers have; any other type as it is."""
    if get_origin(kind) not in (Union, UnionType):
        return kind
    left = tuple(part for part in get_args(kind) if part not in others)
    return Union[left] if left else kind  # noqa: UP007 - built at run time


def _responses(route: Route, schemas: _Schemas) -> Json:
    """Return every answer: the usual one, the errors of the kit and of the gateway, and what the route names itself."""
    meanings = {route.status: HTTPStatus(route.status).description or HTTPStatus(route.status).phrase, **_errors(route)}
    meanings |= {status: each if isinstance(each, str) else each[1] for status, each in route.answers.items()}
    bodies = _bodies(route)
    responses: Json = {}
    for status in sorted(meanings):
        response: Json = {"description": meanings[status]}
        if status >= 400:
            response["content"] = {MEDIA_TYPE: {"schema": schemas.of(ProblemBody)}}
        elif status in bodies:
            kind = bodies[status]
            response["content"] = {JSON: {"schema": {} if kind in _WITHOUT_SCHEMA else schemas.of(kind)}}
        responses[str(status)] = response
    return responses


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
    if route.injected.path:
        errors[404] = "Nothing there, or nothing you may see"
    if route.method != "GET":
        errors |= {
            408: "The body came too slowly",
            409: "The state forbids it",
            412: "If-Match or If-None-Match does not hold",
            413: "The body is too large",
            415: "The body is not JSON, or has a coding",
        }
    if route.body_type is not None or route.injected.query or not route.tolerant:
        errors[422] = "A field or parameter is wrong, or not known"
    return errors


def _tag(path: str) -> str:
    parts = [part for part in path.split("/") if part and not part.startswith("{") and part not in ("api", "v1")]
    return parts[0] if parts else "root"


__all__ = ["openapi"]
