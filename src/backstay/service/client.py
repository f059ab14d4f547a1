"""Calls to other services: an instance from the registry, our own token, trace and deadline on board.

One attempt is what the pipeline guards; within it a refused connection goes to the next instance at once, for nothing
was sent. An answer of 4xx is an answer, so a breaker doesn't count it.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar, cast, overload
from urllib.parse import urlsplit

import msgspec

from backstay.asgi.answers import encode
from backstay.discovery import Instance, Registry
from backstay.discovery.instance import UP
from backstay.errors import ConfigError
from backstay.http.client import HttpClient
from backstay.http.errors import BadResponse, ConnectFailed, PoolFull
from backstay.http.messages import Headers, HttpResponse
from backstay.http.problems import DeadlineExceeded as PassedDeadline
from backstay.resilience import (
    DEADLINE_HEADER,
    RETRY_HEADER,
    STOP_HEADER,
    DeadlineTimeout,
    Pipeline,
    Policy,
    clamp,
    current_attempt,
)
from backstay.service.errors import ServiceCallError, UpstreamError, UpstreamRefused
from backstay.telemetry.trace import current

T = TypeVar("T")

TIMEOUT = 10.0
"""Seconds for one attempt, if neither the deadline nor a time limiter ends it before."""
INSTANCES = 3
"""Instances tried within one attempt while connections are refused."""
_PASSING = frozenset({408, 429})


class Tokens(Protocol):
    """Where a service's own access token comes from."""

    def token(self) -> str:
        """Return the current token; raises a ConnectionError if there is none."""

    def renew(self) -> None:
        """Ask for another token, because this one was refused."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL points to: a registered application (`lb://orders`) or an address (`http://host:port`)."""

    app: str | None
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> "Target":
        """Raises `ConfigError` for a URL that is neither."""
        parts = urlsplit(url)
        path = parts.path.rstrip("/")
        with contextlib.suppress(ValueError):  # a port that is no number
            if parts.scheme == "lb" and parts.hostname:
                return cls(parts.hostname, "", 0, path)
            if parts.scheme == "http" and parts.hostname:
                return cls(None, parts.hostname, parts.port or 80, path)
        raise ConfigError(f"{url!r}: a service's address is lb://<application> or http://<host>:<port>")

    def __str__(self) -> str:
        return self.app or f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Response:
    """A whole answer of another service."""

    status: int
    headers: Headers
    body: bytes

    def json(self, kind: type[T]) -> T:
        """Return the body as `kind`; raises msgspec's errors if it isn't that."""
        return cast(T, _decoder(cast(Any, kind)).decode(self.body))


class Client:
    """One other service, behind its pipeline. Made by `client`; a `Service` that owns it wires it."""

    def __init__(
        self,
        url: str,
        pipeline: Policy | None = None,
        *,
        scope: str | None = None,
        audience: str | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        self.target = Target.parse(url)
        self.scope = scope
        self.audience = audience or self.target.app
        self.pipeline = pipeline
        self._timeout = timeout
        self._http: HttpClient | None = None
        self._registry: Registry | None = None
        self._tokens: Tokens | None = None
        self._send = pipeline(self._attempt) if pipeline is not None else self._attempt

    def __repr__(self) -> str:
        return f"Client({self.target}, {self.pipeline!r})"

    def bind(self, http: HttpClient, registry: Registry | None, tokens: Tokens | None) -> None:
        """Give it the process's connections, registry and token (the service does)."""
        self._http, self._registry, self._tokens = http, registry, tokens

    async def __aenter__(self) -> Self:
        if self._http is None:
            self._http = HttpClient()
        if self.target.app is not None and self._registry is None:
            raise ConfigError(
                f"lb://{self.target.app} needs a registry: set DISCOVERY_URL, or use http://<host>:<port>"
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        """The connections belong to the process and are closed there."""

    async def get(self, path: str, kind: type[T], *, headers: Mapping[str, str] | None = None) -> T:
        """GET `path` and read the answer as `kind`; errors as in `request`."""
        return self._read(await self.request("GET", path, headers=headers), kind)

    @overload
    async def post(self, path: str, body: Any, kind: type[T], *, headers: Mapping[str, str] | None = None) -> T: ...
    @overload
    async def post(
        self, path: str, body: Any = None, kind: None = None, *, headers: Mapping[str, str] | None = None
    ) -> None: ...
    async def post(
        self, path: str, body: Any = None, kind: type[T] | None = None, *, headers: Mapping[str, str] | None = None
    ) -> T | None:
        """POST `body` as JSON and read the answer as `kind`; errors as in `request`."""
        response = await self.request("POST", path, body, headers=headers)
        return None if kind is None else self._read(response, kind)

    async def request(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Send a request through the pipeline; the answer has a status below 400.

        Raises:
            UpstreamRefused: 4xx; the same request would be refused again.
            UpstreamError: 5xx, 429, 408, or no HTTP.
            ConnectionError: nobody there (`NoInstance`), lost on the way, or no service token.
            TimeoutError: no answer in time; `DeadlineTimeout` where the request's own deadline left too little.
            Rejected: a policy of the pipeline refused the call.
        """
        extra = tuple(headers.items()) if headers else ()
        response = await self._send(method, self.target.path + path, encode(body), extra)
        if response.status >= 400:
            raise self._said_no(UpstreamRefused, response)
        return Response(response.status, response.headers, response.body)

    async def _attempt(self, method: str, target: str, body: bytes, extra: tuple[tuple[str, str], ...]) -> HttpResponse:
        timeout = clamp(self._timeout)
        headers = [*extra, (DEADLINE_HEADER, str(max(1, int(timeout * 1000)))), ("accept", "application/json")]
        if body and all(name.lower() != "content-type" for name, _ in extra):
            headers.append(("content-type", "application/json"))
        if (attempt := current_attempt()) > 1:
            headers.append((RETRY_HEADER, str(attempt)))
        context = current()
        if context is not None:
            headers.append(("traceparent", context.child().traceparent))
        if self._tokens is not None:
            headers.append(("authorization", f"Bearer {self._tokens.token()}"))
        try:
            response = await self._exchange(method, target, body, headers, timeout)
        except BadResponse as error:
            raise UpstreamError(str(self.target), 502, {"detail": str(error)}) from error
        except TimeoutError as error:
            if timeout < self._timeout:
                raise DeadlineTimeout(
                    f"{self.target} didn't answer within the {timeout:.3f} s that were left"
                ) from error
            raise
        if timeout < self._timeout and self._is_out_of_time(response):
            raise DeadlineTimeout(f"{self.target} says that the {timeout:.3f} s that were left are over")
        if response.status == 401 and self._tokens is not None:
            self._tokens.renew()
            raise self._said_no(UpstreamError, response)
        if response.status >= 500 or response.status in _PASSING:
            raise self._said_no(UpstreamError, response)
        return response

    async def _exchange(
        self, method: str, target: str, body: bytes, headers: list[tuple[str, str]], timeout: float
    ) -> HttpResponse:
        http = self._http
        if http is None:
            raise ConfigError(f"{self!r} was not entered: put it into the service's owns=[...] or use `async with`")
        to = self.target
        if to.app is None or self._registry is None:
            return await http.request(to.host, to.port, method, target, headers=headers, body=body, timeout=timeout)
        tried = 0
        while True:
            instance = self._registry.choose(to.app)
            host, port = instance.plain_address()
            tried += 1
            try:
                return await http.request(host, port, method, target, headers=headers, body=body, timeout=timeout)
            except PoolFull:
                raise
            except ConnectFailed:
                self._registry.eject(instance)
                if tried == INSTANCES or not self._has_other(instance):
                    raise

    def _has_other(self, refused: Instance) -> bool:
        registry, app = self._registry, self.target.app
        if registry is None or app is None:
            return False
        return any(i != refused and i.status == UP and i.obstacle is None for i in registry.instances(app))

    def _is_out_of_time(self, response: HttpResponse) -> bool:
        """Return whether the other service ended the request because the time that we gave it was over."""
        if response.status != 504:
            return False
        error = self._said_no(UpstreamError, response)
        return error.slug == PassedDeadline.slug

    def _said_no(self, kind: type[ServiceCallError], response: HttpResponse) -> ServiceCallError:
        try:
            problem = msgspec.json.decode(response.body, type=dict[str, Any])
        except msgspec.MsgspecError:
            problem = {}
        error = kind(str(self.target), response.status, problem)
        error.do_not_retry = STOP_HEADER in response.headers
        error.retry_after = _seconds(response.headers.get("retry-after"))
        return error

    def _read(self, response: Response, kind: type[T]) -> T:
        try:
            return response.json(kind)
        except msgspec.MsgspecError as error:
            detail = f"the answer is not a {getattr(kind, '__name__', kind)}: {error}"
            raise UpstreamError(str(self.target), response.status, {"detail": detail}) from error


def client(
    url: str,
    pipeline: Pipeline | Policy | None = None,
    *,
    scope: str | None = None,
    audience: str | None = None,
    timeout: float = TIMEOUT,
) -> Client:
    """Return a client of another service.

    Args:
        url: `lb://<application>` by the registry, or `http://<host>:<port>`.
        pipeline: guards every attempt; none by default.
        scope: what the service's own token must allow there.
        audience: the service's name in its tokens; the application of `lb://` by default.
        timeout: seconds for one attempt.
    """
    return Client(url, pipeline, scope=scope, audience=audience, timeout=timeout)


def _seconds(header: str | None) -> float:
    """Return a Retry-After in seconds; 0.0 if there is none, or it is a date."""
    return float(header) if header is not None and header.isdecimal() else 0.0


@cache
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


__all__ = ["INSTANCES", "TIMEOUT", "Client", "Response", "Target", "Tokens", "client"]
