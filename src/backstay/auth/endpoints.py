"""The issuer's endpoints: fixed addresses from the settings, tried in turn.

Whom a process believes is configured and never discovered: `lb://` is refused here, because everybody who can write to
the registry would then choose the keys. A redirect is not followed, for the same reason.
"""

import asyncio
import http.client
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

from backstay.auth.errors import EndpointsUnavailable
from backstay.errors import ConfigError, masked
from backstay.http import HttpClient, HttpError

ATTEMPT_TIMEOUT = 2.0  # seconds for one address; the next one gets its turn
MAX_ANSWER = 1024 * 1024  # bytes
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of an issuer."""

    tls: bool
    host: str
    port: int
    target: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Parse an address; raises ValueError for anything but `http(s)://host[:port]/path`."""
        parts = urlsplit(url)
        if parts.scheme == "lb":
            raise ValueError(
                f"{masked(url)!r} is looked up in the registry, and whoever can write there would choose whom this "
                "process trusts; name the fixed address"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None or parts.fragment:
            raise ValueError(f"{masked(url)!r} is not http(s)://host[:port]/path")
        tls = parts.scheme == "https"
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii() or not target.isprintable() or " " in target:
            raise ValueError(f"{masked(url)!r} has a path that is not printable ASCII")
        return cls(tls, parts.hostname, parts.port or (443 if tls else 80), target)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.target}"


def parse_endpoints(text: str) -> tuple[Endpoint, ...]:
    """Parse addresses separated by commas, at least one; raises ValueError naming the wrong one."""
    endpoints = tuple(Endpoint.parse(part.strip()) for part in text.split(",") if part.strip())
    if not endpoints:
        raise ValueError("at least one address is needed, http(s)://host[:port]/path")
    return endpoints


class FixedEndpoints:
    """Addresses of one issuer, any of which gives the answer.

    Each call begins with the address that answered last and goes on to the others; `check` raises ValueError for an
    answer that is of no use, and the next address is asked. TLS is verified with the system's certificates, or those
    that SSL_CERT_FILE names.
    """

    def __init__(
        self,
        urls: str,
        http: HttpClient,
        *,
        variable: str,
        check: Callable[[bytes], object] = bool,
        timeout: float = ATTEMPT_TIMEOUT,
    ) -> None:
        """Check the addresses; raises ConfigError naming `variable`. timeout: seconds for one address."""
        try:
            self._endpoints = parse_endpoints(urls)
        except ValueError as error:
            raise ConfigError(f"{variable}={masked(urls)!r}: {error}") from error
        self._http = http
        self._check = check
        self._attempt_timeout = timeout
        self._first = 0

    def __repr__(self) -> str:
        return f"FixedEndpoints({', '.join(map(str, self._endpoints))})"

    @property
    def timeout(self) -> float:
        """Seconds within which every address has had its turn."""
        return self._attempt_timeout * len(self._endpoints) + 1.0

    async def get(self) -> bytes:
        """Return the body of the first good answer to a GET; raises EndpointsUnavailable if no address gave one."""
        return await self._ask("GET", None)

    async def post(self, form: bytes) -> bytes:
        """Return the body of the first good answer to an urlencoded form; raises EndpointsUnavailable without one."""
        return await self._ask("POST", form)

    async def _ask(self, method: str, form: bytes | None) -> bytes:
        reasons = []
        count = len(self._endpoints)
        for index in ((self._first + step) % count for step in range(count)):
            endpoint = self._endpoints[index]
            try:
                async with asyncio.timeout(self._attempt_timeout):
                    status, body = await self._exchange(endpoint, method, form)
                if status != 200:
                    raise ValueError(f"status {status}")
                self._check(body)
            except (OSError, ValueError, HttpError, http.client.HTTPException) as error:
                reasons.append(f"{endpoint}: {str(error) or type(error).__name__}")
            else:
                self._first = index
                return body
        raise EndpointsUnavailable("; ".join(reasons))

    async def _exchange(self, endpoint: Endpoint, method: str, form: bytes | None) -> tuple[int, bytes]:
        headers = [("accept", "application/json"), *([("content-type", FORM)] if form is not None else [])]
        if endpoint.tls:
            return await asyncio.to_thread(_exchange_tls, endpoint, method, form, dict(headers), self._attempt_timeout)
        answer = await self._http.request(
            endpoint.host,
            endpoint.port,
            method,
            endpoint.target,
            headers=headers,
            body=form or b"",
            timeout=self._attempt_timeout,
            max_body=MAX_ANSWER,
        )
        return answer.status, answer.body


def _exchange_tls(
    endpoint: Endpoint, method: str, form: bytes | None, headers: dict[str, str], timeout: float
) -> tuple[int, bytes]:
    """By the standard library, which verifies the certificate; our own client speaks no TLS."""
    context = ssl.create_default_context()
    connection = http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=timeout, context=context)
    try:
        connection.request(method, endpoint.target, form, headers)
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER + 1)
    finally:
        connection.close()
    if len(body) > MAX_ANSWER:
        raise ValueError(f"the answer has more than {MAX_ANSWER} bytes")
    return answer.status, body


__all__ = ["ATTEMPT_TIMEOUT", "Endpoint", "FixedEndpoints", "parse_endpoints"]
