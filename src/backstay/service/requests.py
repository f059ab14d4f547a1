"""What comes in: headers, the body as bytes with its limits, and the values in path and query."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from backstay.http.addresses import address_key
from backstay.service.problems import BadRequest, FieldError, NotFound, RequestTimeout, TooLarge, Unprocessable
from backstay.service.routing import Parameter

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_QUERY_FIELDS = 100
"""More query parameters are refused."""


class Disconnected(Exception):
    """The client went away before its request was read; nobody is there to answer."""


class Request:
    """Headers and peer of the request, for a handler that needs more than its values."""

    __slots__ = ("_proxies", "_scope", "headers")

    def __init__(self, scope: Scope, headers: Mapping[bytes, bytes], proxies: re.Pattern[str] | None = None) -> None:
        self._scope = scope
        self._proxies = proxies
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
        """Return the header of that name; None if the request has none."""
        value = self.headers.get(name.lower().encode("latin-1"))
        return None if value is None else value.decode("latin-1")

    @property
    def address_key(self) -> str:
        """Who asks, as the owner of a limit: an IPv6 client has its whole /64 to come from."""
        return address_key(self.address)

    @property
    def address(self) -> str:
        """Who asks: the nearest address in `X-Forwarded-For` that is none of our proxies, else the peer.

        What stands before it in the header was sent by the client and proves nothing.
        """
        for forwarded in reversed((self.header("x-forwarded-for") or "").split(",")):
            address = forwarded.strip()
            if address and (self._proxies is None or not self._proxies.fullmatch(address)):
                return address
        peer = self._scope.get("client")
        return str(peer[0]) if peer else ""


async def read_body(receive: Receive, headers: Mapping[bytes, bytes], limit: int, timeout: float) -> bytes:
    """Return the whole body, as long as it stays within `limit` bytes and arrives within `timeout` seconds.

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


def path_values(parameters: tuple[Parameter, ...], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of the path as the handler's types; what doesn't fit names nothing: `NotFound`."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        text = given[parameter.name]
        try:
            values[parameter.name] = _convert(text, parameter.type)
        except ValueError:
            raise NotFound(f"{parameter.name} {text[:100]!r} is not a {_type_name(parameter.type)}") from None
    return values


def query_values(parameters: tuple[Parameter, ...], query: bytes, *, tolerant: bool = False) -> dict[str, Any]:
    """Return the query parameters as the handler's types; raises `Unprocessable` with every wrong one.

    Unless `tolerant`, a parameter that the handler doesn't have is wrong, and so is one given twice that holds one
    value.
    """
    given = _query(query)
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for parameter in parameters:
        texts = given.pop(parameter.name, None)
        if texts is None:
            if parameter.required:
                errors.append(FieldError(f"/query/{parameter.name}", "is required"))
            continue
        several = _is_list(parameter.type)
        if len(texts) > 1 and not (several or tolerant):
            errors.append(FieldError(f"/query/{parameter.name}", "is given twice; send it once"))
            continue
        try:
            values[parameter.name] = _convert(texts if several else texts[-1], parameter.type)
        except ValueError as error:
            errors.append(FieldError(f"/query/{parameter.name}", str(error)))
    if given and not tolerant:
        errors += _not_parameters(given, parameters)
    if errors:
        raise Unprocessable(errors=errors)
    return values


def _not_parameters(names: Iterable[str], parameters: tuple[Parameter, ...]) -> list[FieldError]:
    there = ", ".join(parameter.name for parameter in parameters)
    reason = f"is not a parameter here; there are {there}" if there else "is not a parameter here; there are none"
    steps = (name[:100].replace("~", "~0").replace("/", "~1") for name in names)
    return [FieldError(f"/query/{step}", reason) for step in steps]


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
    "path_values",
    "query_values",
    "read_body",
]
