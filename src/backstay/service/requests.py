"""Requests: headers, peer, and the body as bytes within its limits."""

import asyncio
import re
from collections.abc import Mapping

from backstay.asgi.types import Message, Receive, Scope
from backstay.http.addresses import address_key
from backstay.http.problems import RequestTimeout, TooLarge


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


__all__ = ["Disconnected", "Request", "read_body"]
