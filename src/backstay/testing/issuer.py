"""An issuer of access tokens, good and bad, without an auth service."""

import time
from typing import Any
from uuid import uuid4

from backstay.auth.signing import SigningKey, jwks


class TokenIssuer:
    """Signs tokens for `audience` with a key of its own; give `jwks` to `backstay.auth.StaticKeys`."""

    def __init__(self, issuer: str = "https://auth.test", *, audience: str) -> None:
        self.issuer = issuer
        self.audience = audience
        self.key = SigningKey.generate()

    @property
    def jwks(self) -> bytes:
        """The key set of this issuer."""
        return jwks([self.key])

    def token(
        self,
        subject: str = "user-1",
        *,
        scope: str = "orders:read orders:write notifications:read",
        roles: tuple[str, ...] = ("customer",),
        header: dict[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a user's token of five minutes; `claims` and `header` replace the good values, None removes one."""
        now = int(time.time())
        good = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "iat": now,
            "exp": now + 300,
            "jti": str(uuid4()),
            "client_id": "web",
            "sid": f"session-of-{subject}",
            "scope": scope,
            "roles": roles,
        }
        kept = {name: value for name, value in {**good, **claims}.items() if value is not None}
        return self.key.sign(kept, header=header)

    def service_token(self, client: str, *, scope: str, audience: str | None = None, **claims: Any) -> str:
        """Return a service's token, for calls of the service `audience`; without it one of customers' audience."""
        own = {"aud": audience or self.audience, "client_id": client, "sid": None}
        return self.token(client, scope=scope, roles=(), **{**own, **claims})
