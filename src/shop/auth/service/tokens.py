"""Access tokens (RFC 9068) for users' sessions and, by client credentials, for services."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from backstay.clock import SYSTEM, Clock
from backstay.errors import BackstayError
from backstay.ids import uuid7
from shop.auth.config import ServiceClient
from shop.auth.model import scopes_of
from shop.auth.service.keys import KeyRing

WEB_CLIENT = "shop-web"
"""The client that users' tokens are made for: our own front end."""
_NOBODY = ServiceClient("nobody", "no such client has this secret")


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A signed token and how long it lives, in seconds."""

    value: str
    life: int
    scope: str


class TokenRefused(BackstayError):
    """A token request is refused; `code` is OAuth's word for the reason (RFC 6749 §5.2)."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code


class Tokens:
    """Signs with the current key."""

    def __init__(
        self,
        keys: KeyRing,
        *,
        issuer: str,
        audience: str,
        access_life: float,
        service_life: float,
        clock: Clock = SYSTEM,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._service_life = service_life
        self._clock = clock
        self.access_life = access_life
        """Seconds a user's token lives."""

    def for_session(self, user_id: UUID, roles: Iterable[str], session_id: UUID) -> IssuedToken:
        """Return a user's token."""
        roles = sorted(roles)
        claims = {"client_id": WEB_CLIENT, "roles": roles, "sid": str(session_id)}
        return self._issue(str(user_id), self._audience, " ".join(scopes_of(roles)), self.access_life, claims)

    def for_client(self, client_id: str, audience: str, scope: str) -> IssuedToken:
        """Return a service's own token, for calls of the service `audience`."""
        return self._issue(client_id, audience, scope, self._service_life, {"client_id": client_id})

    def _issue(self, subject: str, audience: str, scope: str, life: float, more: Mapping[str, Any]) -> IssuedToken:
        now = int(self._clock.now().timestamp())
        claims = {
            "iss": self._issuer,
            "sub": subject,
            "aud": audience,
            "exp": now + int(life),
            "iat": now,
            "jti": str(uuid7()),
            "scope": scope,
            **more,
        }
        return IssuedToken(self._keys.current.sign(claims), int(life), scope)


class Clients:
    """Services that have tokens of their own."""

    def __init__(self, clients: Mapping[str, ServiceClient], tokens: Tokens) -> None:
        self._clients = clients
        self._tokens = tokens

    def token(self, client_id: str, secret: str, scope: str | None, audience: str | None = None) -> IssuedToken:
        """Return a token for one service, with the requested scope or all the client may have; raises `TokenRefused`.

        The audience may be left out by a client that has but one (RFC 8707 §2).
        """
        client = self._clients.get(client_id, _NOBODY)
        if not _is_secret(secret, client.secret) or client is _NOBODY:
            raise TokenRefused("invalid_client", "unknown client, or the secret is wrong")
        allowed = client.scope.split()
        wanted = allowed if scope is None else scope.split()
        if excess := sorted(set(wanted) - set(allowed)):
            raise TokenRefused("invalid_scope", f"{client_id} may not have {' '.join(excess)}")
        return self._tokens.for_client(client_id, _audience(client, audience), " ".join(wanted))


def _audience(client: ServiceClient, wanted: str | None) -> str:
    allowed = client.audience.split()
    if wanted is None and len(allowed) == 1:
        return allowed[0]
    if wanted not in allowed:
        named = "without an audience" if wanted is None else f"for {wanted}"
        raise TokenRefused("invalid_target", f"{client.id} gets no token {named}; it may call {', '.join(allowed)}")
    assert wanted is not None
    return wanted


def _is_secret(given: str, known: str) -> bool:
    return hmac.compare_digest(_digest(given), _digest(known))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
