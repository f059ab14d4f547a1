"""What comes in: headers, the body with its limits, and the values in path and query."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from backstay.service.problems import (
    BadRequest,
    FieldError,
    NotFound,
    RequestTimeout,
    TooLarge,
    Unprocessable,
    UnsupportedMedia,
)
from backstay.service.routing import Parameter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_QUERY_FIELDS = 100
"""More query parameters are refused."""

_AT = re.compile(r"^(.*?) - at (?:`key` in )?`\$(.*)`$", re.DOTALL)
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(.+)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


class Disconnected(Exception):
    """The client went away before its request was read; nobody is there to answer."""


class Request:
    """Headers and peer of the request, for a handler that needs more than its values."""

    __slots__ = ("_scope", "headers")

    def __init__(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        self._scope = scope
        self.headers = headers
        """Names in lower case, as they came."""

    @property
    def method(self) -> str:
        """The method, in upper case."""
        return str(self._scope["method"])

    @property
    def path(self) -> str:
        """The decoded path, without the query."""
        return str(self._scope["path"])

    def header(self, name: str) -> str | None:
        """The header of that name; None if the request has none."""
        value = self.headers.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    @property
    def address(self) -> str:
        """Who asks: what our own gateway, the nearest hop, wrote into `X-Forwarded-For`, else the peer."""
        forwarded = self.header("x-forwarded-for")
        if forwarded:
            return forwarded.rsplit(",", 1)[-1].strip()
        peer = self._scope.get("client")
        return str(peer[0]) if peer else ""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout: float) -> bytes:
    """The whole body, as long as it stays within `limit` bytes and arrives within `timeout` seconds.

    Raises:
        TooLarge: declared or sent more than `limit`, whether chunked or not.
        RequestTimeout: it came too slowly.
        Disconnected: the client went away.
    """
    declared = headers.get(b"content-length")
    if declared is not None and int(declared) > limit:
        raise _too_large(limit)
    try:
        async with asyncio.timeout(timeout):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body") and len(message["body"]) <= limit:
                return bytes(message["body"])
            return await _read_on(receive, message, limit)
    except TimeoutError:
        raise RequestTimeout(f"the body did not arrive within {timeout:g} s") from None


async def _read_on(receive: Receive, message: Message, limit: int) -> bytes:
    body = bytearray()
    while True:
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > limit:
            raise _too_large(limit)
        if not message.get("more_body"):
            return bytes(body)
        message = await receive()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body may have at most {limit} bytes", limit=limit)


def check_json(headers: Mapping[bytes, bytes]) -> None:
    """Raise `UnsupportedMedia` unless the body says it is JSON or says nothing."""
    given = headers.get(b"content-type")
    if given is None or given == b"application/json":
        return
    media = given.split(b";", 1)[0].strip().lower()
    if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
        shown = media.decode("latin-1")[:100]
        raise UnsupportedMedia(
            f"content-type is {shown!r}; send application/json", headers={"Accept": "application/json"}
        )


_TO_THE_END = msgspec.json.Decoder(float_hook=str)
"""Reads any JSON, also numbers that no float can hold."""


def decode_body(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    """The body as its model.

    Raises:
        BadRequest: it is not JSON.
        Unprocessable: it is JSON of another shape; names the first wrong field.
    """
    try:
        value = _decoded(decoder, body)
    except msgspec.ValidationError as error:
        _decoded(_TO_THE_END, body)  # the decoder stops at the first wrong field; what follows may be no JSON at all
        raise Unprocessable(errors=[field_error(error)]) from None
    if b"\\u0000" in body and _NUL.search(body):
        pointer = _pointer_to_nul(_TO_THE_END.decode(body)) or ""
        raise Unprocessable(errors=[FieldError(pointer, "the character U+0000 is not allowed in text")])
    return value


def _decoded(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        detail = "the body is empty; send JSON" if not body else f"the body is not JSON: {error}"
        raise BadRequest(detail, slug="malformed-json", title="Malformed JSON") from None


def _pointer_to_nul(value: Any) -> str | None:
    """Where the first text with U+0000 is; a name that holds one is pointed to by the object it is in."""
    if isinstance(value, str):
        return "" if "\0" in value else None
    if isinstance(value, dict):
        if any("\0" in name for name in value):
            return ""
        parts = [(_escaped(name), part) for name, part in value.items()]
    else:
        parts = [(str(index), part) for index, part in enumerate(value)] if isinstance(value, list) else []
    for step, part in parts:
        if (rest := _pointer_to_nul(part)) is not None:
            return f"/{step}{rest}"
    return None


def _escaped(name: str) -> str:
    """A member's name as a step of a JSON pointer."""
    return name.replace("~", "~0").replace("/", "~1")


def field_error(error: msgspec.ValidationError) -> FieldError:
    """Where and why, from the text of a msgspec error (`... - at `$.lines[0].quantity``)."""
    found = _AT.match(str(error))
    reason, path = found.groups() if found else (str(error), "")
    pointer = "".join("/" + (name or index) for name, index in _STEP.findall(path.replace("[...]", "")))
    if named := _FIELD.search(reason):
        pointer += "/" + _escaped(named.group(1))
    return FieldError(pointer, reason)


def path_values(parameters: tuple[Parameter, ...], given: Mapping[str, str]) -> dict[str, Any]:
    """The parts of the path as the handler's types; what doesn't fit names nothing: `NotFound`."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        text = given[parameter.name]
        try:
            values[parameter.name] = _convert(text, parameter.type)
        except ValueError:
            raise NotFound(f"{parameter.name} {text[:100]!r} is not a {_type_name(parameter.type)}") from None
    return values


def query_values(parameters: tuple[Parameter, ...], query: bytes) -> dict[str, Any]:
    """The query parameters as the handler's types; raises `Unprocessable` with every wrong one."""
    given = _query(query)
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for parameter in parameters:
        texts = given.get(parameter.name)
        if texts is None:
            if parameter.required:
                errors.append(FieldError(f"/query/{parameter.name}", "is required"))
            continue
        try:
            values[parameter.name] = _convert(texts if _is_list(parameter.type) else texts[-1], parameter.type)
        except ValueError as error:
            errors.append(FieldError(f"/query/{parameter.name}", str(error)))
    if errors:
        raise Unprocessable(errors=errors)
    return values


def _query(query: bytes) -> dict[str, list[str]]:
    if not query:
        return {}
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query.decode("ascii"), True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise BadRequest(f"the query is malformed or has more than {MAX_QUERY_FIELDS} parameters") from None
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _convert(given: str | list[str], kind: Any) -> Any:
    if "\0" in given or (isinstance(given, list) and any("\0" in text for text in given)):
        raise ValueError("the character U+0000 is not allowed")
    return given if kind is str else msgspec.convert(given, kind, strict=False)


def _is_list(kind: Any) -> bool:
    return getattr(kind, "__origin__", kind) in (list, tuple, set, frozenset)


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


__all__ = [
    "MAX_QUERY_FIELDS",
    "Disconnected",
    "Message",
    "Receive",
    "Request",
    "Scope",
    "Send",
    "check_json",
    "decode_body",
    "field_error",
    "path_values",
    "query_values",
    "read_body",
]
