"""The local check of a bearer token, without a call to another service.

The algorithm is ours (ES256), never the token's choice; a token that names a key by address or by value, or asks
for an extension, is refused. A token verified once is remembered until it expires or the key set changes.

The claims are those that RFC 9068 §2.2 requires: iss, exp, aud, sub, client_id, iat and jti. A customer's token names
the configured audience; a token of another service names the service that it calls (RFC 8707), and is of no use at any
other.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.util import urlsafe_b64decode

from backstay.auth.errors import InvalidToken
from backstay.auth.keys import KeySource
from backstay.auth.principal import Principal
from backstay.errors import ConfigError
from backstay.metrics import Count

ALGORITHM = "ES256"
TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
LEEWAY = 30.0  # seconds that clocks may differ
CACHE_SIZE = 10_000  # verified tokens
MAX_TOKEN_BYTES = 8 * 1024
MAX_LIFETIME = 3600.0  # seconds from iat to exp; longer ones outlive every revocation
_Default = TypeVar("_Default", str, None)
_REFUSED_HEADERS = ("crit", "jku", "jwk", "x5u", "x5c", "b64")


@dataclass(frozen=True, slots=True)
class VerifierStatistics:
    """Counts since the start."""

    verified: Count
    cache_hits: Count
    refused: Count
    cached: int


class TokenVerifier:
    """Turns RFC 9068 access tokens into principals.

    audience: of customers' tokens; service: the name of the service that verifies, which is the audience of tokens that
    other services call it with (without it no token is `internal`); leeway and max_lifetime: seconds.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: KeySource,
        *,
        service: str | None = None,
        leeway: float = LEEWAY,
        max_lifetime: float = MAX_LIFETIME,
        cache: int = CACHE_SIZE,
        now: Callable[[], float] = time.time,
    ) -> None:
        if service is not None and service == audience:
            raise ConfigError(f"TOKEN_AUDIENCE={audience!r}: must differ from the service's own name")
        self.issuer = issuer
        self.audience = audience
        self.service = service
        self._keys = keys
        self._leeway = leeway
        self._max_lifetime = max_lifetime
        self._now = now
        self._size = cache
        self._cache: dict[str | bytes, Principal] = {}
        self._version = keys.version
        self._verified = self._hits = self._refused = 0

    def __repr__(self) -> str:
        return f"TokenVerifier(issuer={self.issuer!r}, audience={self.audience!r}, leeway={self._leeway})"

    def verify(self, token: str | bytes) -> Principal:
        """Return the principal of a valid token; raises `InvalidToken` or `KeysUnavailable`."""
        if self._version != self._keys.version:
            self._cache.clear()
            self._version = self._keys.version
        known = self._cache.get(token)
        if known is not None and self._now() < known.expires_at + self._leeway:
            self._hits += 1
            return known
        return self._verify_anew(token)

    def statistics(self) -> VerifierStatistics:
        """Return a snapshot of the counters."""
        return VerifierStatistics(self._verified, self._hits, self._refused, len(self._cache))

    def _verify_anew(self, token: str | bytes) -> Principal:
        self._cache.pop(token, None)
        try:
            principal = self._read(self._claims(token))
        except InvalidToken:
            self._refused += 1
            raise
        self._verified += 1
        if self._size:
            if len(self._cache) >= self._size:
                del self._cache[next(iter(self._cache))]
            self._cache[token] = principal
        return principal

    def _claims(self, token: str | bytes) -> Mapping[str, Any]:
        compact = token.encode("utf-8", "replace") if isinstance(token, str) else token
        if len(compact) > MAX_TOKEN_BYTES:
            raise InvalidToken(f"longer than {MAX_TOKEN_BYTES} bytes")
        key = self._keys.find(_key_id(compact))
        if key is None:
            raise InvalidToken("unknown key id")
        try:
            claims = json.loads(jws.deserialize_compact(compact, key, [ALGORITHM]).payload)
        except (JoseError, ValueError, RecursionError) as error:
            raise InvalidToken("bad signature or content") from error
        if not isinstance(claims, dict):
            raise InvalidToken("claims are not an object")
        return claims

    def _read(self, claims: Mapping[str, Any]) -> Principal:
        if claims.get("iss") != self.issuer:
            raise InvalidToken("wrong issuer")
        audiences = _audiences(claims)
        subject, client = _text(claims, "sub"), _text(claims, "client_id")
        session = _optional_text(claims, "sid", None)
        # Only a token that a service got for itself may be internal: a customer's never is, whatever it names.
        internal = self.service in audiences and session is None and client == subject
        if not internal and self.audience not in audiences:
            raise InvalidToken("wrong audience")
        _text(claims, "jti")
        return Principal(
            id=subject,
            roles=_names(claims.get("roles", [])),
            scopes=frozenset(_optional_text(claims, "scope", "").split()),
            session=session,
            client=client,
            expires_at=self._check_times(claims),
            internal=internal,
        )

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        now = self._now()
        issued_at, expires_at = _required_time(claims, "iat"), _required_time(claims, "exp")
        if now >= expires_at + self._leeway:
            raise InvalidToken("expired")
        not_before = _time(claims, "nbf")
        if max(issued_at, issued_at if not_before is None else not_before) > now + self._leeway:
            raise InvalidToken("not valid yet")
        if not 0 < expires_at - issued_at <= self._max_lifetime:
            raise InvalidToken(f"lifetime is not between 0 and {self._max_lifetime:g} seconds")
        return expires_at


def _key_id(compact: bytes) -> str:
    try:
        header = json.loads(urlsafe_b64decode(compact.split(b".", 1)[0]))
    except (ValueError, RecursionError) as error:
        raise InvalidToken("not a JWT") from error
    if not isinstance(header, dict):
        raise InvalidToken("not a JWT")
    if header.get("alg") != ALGORITHM:
        raise InvalidToken(f"algorithm is not {ALGORITHM}")
    if not isinstance(typ := header.get("typ"), str) or typ.lower() not in TOKEN_TYPES:
        raise InvalidToken("type is not at+jwt")
    if any(name in header for name in _REFUSED_HEADERS):
        raise InvalidToken("header names a key or an extension")
    if not isinstance(kid := header.get("kid"), str):
        raise InvalidToken("key id is missing")
    return kid


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise InvalidToken(f"claim {name} is not a time")
    return float(value)


def _required_time(claims: Mapping[str, Any], name: str) -> float:
    value = _time(claims, name)
    if value is None:
        raise InvalidToken(f"claim {name} is missing")
    return value


def _audiences(claims: Mapping[str, Any]) -> frozenset[str]:
    value = claims.get("aud")
    return frozenset(name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str))


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidToken(f"claim {name} is missing")
    return value


def _optional_text(claims: Mapping[str, Any], name: str, default: _Default) -> str | _Default:
    value = claims.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidToken(f"claim {name} is not a string")
    return default if value is None else value


def _names(value: object) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise InvalidToken("claim roles is not a list of strings")
    return frozenset(value)
