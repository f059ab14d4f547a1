"""Eureka's requests as a client makes them: to the last registry that answered, else to the next one."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlencode, urlsplit

from backstay.discovery import wire_json
from backstay.discovery.errors import RegistryFault
from backstay.discovery.limits import MAX_LIST
from backstay.discovery.registration import Registration
from backstay.errors import ConfigError
from backstay.http import HttpClient, HttpError, HttpResponse

PORT = 8761
_HEADERS = (("accept", "application/json"),)
_LIST_HEADERS = (*_HEADERS, ("accept-encoding", "gzip"))
_BODY_HEADERS = (*_HEADERS, ("content-type", "application/json"))
_REFUSED = {
    401: " (user and password in the registry's URL are missing or wrong)",
    403: " (the registry's credential is not bound to this application)",
}


@dataclass(frozen=True, slots=True)
class RegistryAddress:
    """Address, path and credential of a registry."""

    host: str
    port: int
    path: str
    authorization: str | None = field(default=None, repr=False)
    """The header of HTTP Basic; None without user and password."""

    @classmethod
    def parse(cls, url: str) -> "RegistryAddress":
        """Return the address in an `http://user:password@host:port/eureka` URL; raises `ConfigError`.

        User and password are percent-decoded (RFC 3986), as by Eureka's own clients; they are optional.
        """
        shown = _without_user(url.strip())
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port or PORT
        except ValueError:
            raise ConfigError(f"registry address {shown!r} is not a URL with a host and a port") from None
        if parts.scheme != "http" or not host:
            raise ConfigError(f"registry address must be like http://host:{PORT}/eureka, not {shown!r}")
        if parts.username is None:
            return cls(host, port, parts.path.rstrip("/"))
        user, password = unquote(parts.username), unquote(parts.password or "")
        if not user or ":" in user:
            raise ConfigError(f"the user of registry address {shown!r} must not be empty or hold a colon")
        encoded = b64encode(f"{user}:{password}".encode()).decode()
        return cls(host, port, parts.path.rstrip("/"), f"Basic {encoded}")


class Transport:
    """The requests; each raises `RegistryFault` when no registry gave a usable answer in time."""

    def __init__(self, addresses: Sequence[RegistryAddress], http: HttpClient, *, timeout: float) -> None:
        self._addresses = list(addresses)
        self._http = http
        self._timeout = timeout

    @property
    def address(self) -> RegistryAddress:
        """The registry that is tried first: the last one that answered."""
        return self._addresses[0]

    async def register(self, held: Registration) -> None:
        """Register, or send a change."""
        path = f"/apps/{quote(held.app, safe='')}"
        await self._call("POST", path, headers=_BODY_HEADERS, body=wire_json.write_registration(held))

    async def renew(self, held: Registration) -> bool:
        """Send a heartbeat; False if the registry doesn't know the lease."""
        query = urlencode({"status": held.status, "lastDirtyTimestamp": held.dirty_at})
        return (await self._call("PUT", f"{_path(held)}?{query}", missing_is_fine=True)).status != 404

    async def cancel(self, held: Registration) -> None:
        """Give the lease back."""
        await self._call("DELETE", _path(held), missing_is_fine=True)

    async def override(self, held: Registration, status: str) -> None:
        """Set a status that outlives heartbeats and registrations."""
        query = urlencode({"value": status, "lastDirtyTimestamp": held.dirty_at})
        await self._call("PUT", f"{_path(held)}/status?{query}")

    async def remove_override(self, held: Registration, status: str) -> None:
        """End the override; `status` holds from then on."""
        await self._call("DELETE", f"{_path(held)}/status?{urlencode({'value': status})}", missing_is_fine=True)

    async def fetch(self) -> HttpResponse:
        """Every application; compressed if the registry can do so, and not unpacked yet."""
        return await self._call("GET", "/apps/", headers=_LIST_HEADERS)

    async def _call(
        self,
        method: str,
        path: str,
        *,
        headers: Sequence[tuple[str, str]] = _HEADERS,
        body: bytes = b"",
        missing_is_fine: bool = False,
    ) -> HttpResponse:
        problems = []
        for address in list(self._addresses):
            try:
                response = await self._send(address, method, path, headers, body)
            except HttpError as error:
                problems.append(str(error))
                continue
            if response.status // 100 == 2 or (missing_is_fine and response.status == 404):
                self._prefer(address)
                return response
            problems.append(
                f"{address.host}:{address.port} answered {response.status} to {method} {address.path}{path}"
                + _REFUSED.get(response.status, "")
            )
        raise RegistryFault("; ".join(problems))

    async def _send(
        self, address: RegistryAddress, method: str, path: str, headers: Sequence[tuple[str, str]], body: bytes
    ) -> HttpResponse:
        if address.authorization is not None:
            headers = (*headers, ("authorization", address.authorization))
        return await self._http.request(
            address.host,
            address.port,
            method,
            address.path + path,
            headers=headers,
            body=body,
            timeout=self._timeout,
            max_body=MAX_LIST,
        )

    def _prefer(self, address: RegistryAddress) -> None:
        if self._addresses[0] != address:
            self._addresses.remove(address)
            self._addresses.insert(0, address)


def _path(held: Registration) -> str:
    return f"/apps/{quote(held.app, safe='')}/{quote(held.id, safe='')}"


def _without_user(url: str) -> str:
    """Return the URL as it may be shown: without what is before the last `@`, be it malformed or not."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url.rpartition("@")[2]
