"""An endpoint: one route made ready to answer, everything decided that can be decided before a request comes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from backstay.asgi.answers import JSON, Answer, encode_json
from backstay.asgi.errors import invalid_token
from backstay.asgi.identity import caller_of, token_needed
from backstay.asgi.replies import Reply, content_type, reply_of
from backstay.asgi.types import Receive, Scope
from backstay.auth import Principal, TokenVerifier, require
from backstay.http.problems import Unavailable
from backstay.service.bodies import check_coding, check_json, decode_body, refuse_no_body
from backstay.service.conditions import NO_CONDITIONS, Conditions
from backstay.service.idempotency import IdempotencyKey
from backstay.service.parameters import path_values, query_values
from backstay.service.requests import Request
from backstay.service.requests import read_body as read
from backstay.service.routing import Route
from backstay.service.statistics import RouteCounters
from backstay.telemetry.trace import TraceContext

_OF_304 = frozenset((b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may cost."""

    body: int = 1024 * 1024
    """Bytes."""
    body_timeout: float = 10.0
    """Seconds for the whole body to arrive."""
    deadline: float = 10.0
    """Seconds for a request that brings no deadline, and the most that one may bring."""
    active: int = 1000
    """Requests being answered at the same moment; more are refused."""


class Inbound:
    """One request on its way through the kit."""

    __slots__ = ("caller", "context", "headers", "reply", "route", "status")

    def __init__(self, headers: dict[bytes, bytes], context: TraceContext) -> None:
        self.headers = headers
        self.context = context
        self.caller: Principal | None = None
        self.reply: Reply | None = None
        """What goes out; None if the client left before there was an answer, or a mounted application answers."""
        self.status = 0
        """Of the answer that a mounted application has begun."""
        self.route: RouteCounters | None = None


class Endpoint:
    """Checks, decodes, calls the handler, encodes."""

    def __init__(
        self, route: Route, *, limits: Limits, verifier: TokenVerifier | None, proxies: re.Pattern[str] | None = None
    ) -> None:
        self.route = route
        self.counters = RouteCounters(route.method, route.path)
        self._handler = route.handler
        self._verifier = verifier
        self._proxies = proxies
        self._max_body = route.max_body or limits.body
        self._body_timeout = limits.body_timeout
        self._decoder = None if route.body_type in (None, bytes) else msgspec.json.Decoder(route.body_type)
        # RFC 9110 §9.3.1: the content of a GET has no meaning, so it is left alone.
        self._refuses_body = route.body_type is None and route.method != "GET" and not route.tolerant
        self._needs_caller = route.needs_caller
        taken = route.injected
        names = [taken.caller, taken.key, taken.body, taken.conditions, taken.request]
        self._caller, self._key, self._body, self._conditions, self._request = (
            None if each is None else each.name for each in names
        )
        self._path, self._query = taken.path, taken.query
        self._ok = content_type(JSON)

    async def __call__(self, scope: Scope, receive: Receive, inbound: Inbound) -> Reply:
        """Answer one request; what goes wrong is raised."""
        route = self.route
        inbound.route = self.counters
        headers = inbound.headers
        given: dict[str, Any] = {}
        if self._needs_caller:
            inbound.caller = self._authenticate(headers.get(b"authorization"))
            if self._caller is not None:
                given[self._caller] = inbound.caller
        if self._key is not None:
            caller = inbound.caller.id if inbound.caller else ""
            given[self._key] = IdempotencyKey.of_header(headers.get(b"idempotency-key"), caller, route.name)
        if self._path:
            given.update(path_values(self._path, scope["path_params"]))
        if self._query or (scope["query_string"] and not route.tolerant):
            query = query_values(self._query, scope["query_string"], tolerant=route.tolerant)
            given.update(query)
        if self._body is not None:
            given[self._body] = await self._read_body(receive, headers)
        elif self._refuses_body and _has_body(headers):
            check_json(headers)
            refuse_no_body(await read(receive, headers, self._max_body, self._body_timeout))
        conditions = NO_CONDITIONS
        if b"if-match" in headers or b"if-none-match" in headers:
            conditions = Conditions.of(scope["headers"])
        if self._conditions is not None:
            given[self._conditions] = conditions
        elif conditions is not NO_CONDITIONS and route.method != "GET":
            conditions.check_untagged()
        if self._request is not None:
            given[self._request] = Request(scope, headers, self._proxies)
        reply = self._reply(await self._handler(**given))
        if conditions is not NO_CONDITIONS and route.method == "GET":
            return _conditional(reply, conditions)
        return reply

    async def _read_body(self, receive: Receive, headers: dict[bytes, bytes]) -> Any:
        if self._decoder is None:
            check_coding(headers)
            return await read(receive, headers, self._max_body, self._body_timeout)
        check_json(headers)
        body = await read(receive, headers, self._max_body, self._body_timeout)
        return decode_body(self._decoder, body, tolerant=self.route.tolerant)

    def _authenticate(self, authorization: bytes | None) -> Principal | None:
        route = self.route
        if authorization is None:
            if route.public:
                return None
            raise token_needed()
        if self._verifier is None:
            raise Unavailable("this service knows no issuer of access tokens")
        caller = caller_of(authorization, self._verifier)
        assert caller is not None
        if route.internal and not caller.internal:
            raise invalid_token("its audience is not this service")
        if route.scope is not None or route.role is not None:
            require(caller, scope=route.scope, role=route.role)
        return caller

    def _reply(self, result: Any) -> Reply:
        if isinstance(result, Answer):
            return reply_of(result)
        if result is None:
            return Reply(self.route.status, [], b"")
        body = encode_json(result) if not isinstance(result, bytes) else result
        return Reply(self.route.status, [self._ok, (b"content-length", b"%d" % len(body))], body)


def _conditional(reply: Reply, conditions: Conditions) -> Reply:
    """Return the answer to a conditional read: 304 with the fields of the 200 that caches need (RFC 9110 §15.4.5)."""
    etag = next((value for name, value in reply.headers if name == b"etag"), None)
    if reply.status != 200 or etag is None or not conditions.is_not_modified(etag.decode("latin-1")):
        return reply
    return Reply(304, [field for field in reply.headers if field[0] in _OF_304], b"")


def _has_body(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-length", b"0").strip(b"0") != b"" or b"transfer-encoding" in headers


__all__ = ["Endpoint", "Inbound", "Limits"]
