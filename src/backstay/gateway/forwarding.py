"""X-Forwarded-*: values from a trusted proxy are continued, all others are dropped and written anew."""

import re
from collections.abc import Mapping

from backstay.http.addresses import address_key, is_loopback

FORWARDING_HEADERS = frozenset(
    (
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-real-ip",
        b"x-original-url",
        b"x-rewrite-url",
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
    )
)
"""Dropped from every request: where it came from is ours to say, and what it asks for is what we have checked."""

_SAFE = re.compile(rb"[A-Za-z0-9.:,_\[\] -]{1,500}")


class Peer:
    """The other end of a client connection: its address, and what is forwarded about it."""

    __slots__ = ("_lines", "_proto_port", "_trusted", "address", "exempt", "key", "trusts")

    def __init__(self, address: str, port: int, trusted: re.Pattern[str] | None) -> None:
        self.address = address
        self.key = address_key(address)
        self.trusts = trusted is not None and trusted.fullmatch(address) is not None
        self.exempt = self.trusts or is_loopback(address)
        """Many clients come from there, so that limits of an address aren't its own."""
        self._trusted = trusted
        self._proto_port = b"x-forwarded-proto: http\r\nx-forwarded-port: %d\r\n" % port
        self._lines = b"x-forwarded-for: %b\r\n%b" % (address.encode(), self._proto_port)

    def lines(self, host: bytes, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the forwarding headers of one request."""
        if not self.trusts:
            return b"%bx-forwarded-host: %b\r\n" % (self._lines, host) if host else self._lines
        return self._continued(host, headers)

    def client_key(self, headers: Mapping[bytes, bytes]) -> str:
        """Return the client for limits: the nearest address that isn't one of our own proxies."""
        if not self.trusts:
            return self.key
        for address in reversed(headers.get(b"x-forwarded-for", b"").decode("latin-1").split(",")):
            address = address.strip()
            if address and self._trusted is not None and not self._trusted.fullmatch(address):
                return address_key(address)
        return self.key

    def is_exempt(self, client: str) -> bool:
        """Return whether the limits of an address don't count for `client`, which `client_key` gave."""
        return self.exempt and client == self.key

    def _continued(self, host: bytes, headers: Mapping[bytes, bytes]) -> bytes:
        before = _given(headers, b"x-forwarded-for")
        own = self.address.encode()
        lines = b"x-forwarded-for: %b\r\n" % (b"%b, %b" % (before, own) if before else own)
        proto, port = _given(headers, b"x-forwarded-proto"), _given(headers, b"x-forwarded-port")
        if proto:
            lines += b"x-forwarded-proto: %b\r\n" % proto
            lines += b"x-forwarded-port: %b\r\n" % port if port else b""
        else:
            lines += self._proto_port
        named = _given(headers, b"x-forwarded-host") or host
        return lines + (b"x-forwarded-host: %b\r\n" % named if named else b"")


def _given(headers: Mapping[bytes, bytes], name: bytes) -> bytes:
    value = headers.get(name, b"").strip()
    return value if _SAFE.fullmatch(value) else b""
