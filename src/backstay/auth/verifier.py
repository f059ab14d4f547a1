"""The check of a bearer token, on the spot, without a call to anybody.

The algorithm is ours (ES256), never the token's choice; a token that names a key by address or by value, or asks
for an extension, is refused. A token verified once is remembered until it expires or the key set changes.
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

ALGORITHM = "ES256"
TOKEN_TYPES = frozenset({"at+jwt", "application/at+jwt"})
LEEWAY = 30.0  # seconds that clocks may differ
CACHE_SIZE = 10_000  # verified tokens
MAX_TOKEN_BYTES = 8 * 1024
_Default = TypeVar("_Default", str, None)
_REFUSED_HEADERS = ("crit", "jku", "jwk", "x5u", "x5c", "b64")


@dataclass(frozen=True, slots=True)
class VerifierStatistics:
    """Counts since the start."""

    verified: int
    cache_hits: int
    refused: int
    cached: int


class TokenVerifier:
    """Turns RFC 9068 access tokens into principals."""

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: KeySource,
        *,
        leeway: float = LEEWAY,
        cache: int = CACHE_SIZE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self._keys = keys
        self._leeway = leeway
        self._now = now
        self._size = cache
        self._cache: dict[str | bytes, Principal] = {}
        self._version = keys.version
        self._verified = self._hits = self._refused = 0

    def __repr__(self) -> str:
        return f"TokenVerifier(issuer={self.issuer!r}, audience={self.audience!r}, leeway={self._leeway})"

    def verify(self, token: str | bytes) -> Principal:
        """The principal of an acceptable token; raises `InvalidToken` or `KeysUnavailable`."""
        if self._version != self._keys.version:
            self._cache.clear()
            self._version = self._keys.version
        known = self._cache.get(token)
        if known is not None and self._now() < known.expires_at + self._leeway:
            self._hits += 1
            return known
        return self._verify_anew(token)

    def statistics(self) -> VerifierStatistics:
        """A snapshot of the counters."""
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
        audience = claims.get("aud")
        if audience != self.audience and not (isinstance(audience, list) and self.audience in audience):
            raise InvalidToken("wrong audience")
        return Principal(
            id=_text(claims, "sub"),
            roles=_names(claims.get("roles", [])),
            scopes=frozenset(_optional_text(claims, "scope", "").split()),
            session=_optional_text(claims, "sid", None),
            client=_optional_text(claims, "client_id", None),
            expires_at=self._check_times(claims),
        )

    def _check_times(self, claims: Mapping[str, Any]) -> float:
        now = self._now()
        expires_at = _time(claims, "exp")
        if expires_at is None:
            raise InvalidToken("claim exp is missing")
        if now >= expires_at + self._leeway:
            raise InvalidToken("expired")
        for name in ("nbf", "iat"):
            begins = _time(claims, name)
            if begins is not None and begins > now + self._leeway:
                raise InvalidToken("not valid yet")
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
