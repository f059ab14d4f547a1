"""The principal of a request: the claims of a verified token, and nothing from a header."""

from dataclasses import dataclass

from backstay.auth.errors import Forbidden


@dataclass(frozen=True, slots=True)
class Principal:
    """The owner of a verified access token."""

    id: str
    """The token's subject: a user id, or the client id of a service."""
    roles: frozenset[str]
    scopes: frozenset[str]
    session: str | None
    """The session's id (claim `sid`); None for a service."""
    client: str | None
    expires_at: float
    """Seconds since the epoch."""
    internal: bool = False
    """Whether the token was issued to a service for calls of the very service that verified it."""

    @property
    def is_service(self) -> bool:
        """True if this is a service acting for itself (client credentials), not for a user."""
        return self.session is None and self.client == self.id


def require(principal: Principal, *, scope: str | None = None, role: str | None = None) -> None:
    """Raise `Forbidden` unless the principal has the required scope and role."""
    if scope is not None and scope not in principal.scopes:
        raise Forbidden(scope=scope)
    if role is not None and role not in principal.roles:
        raise Forbidden(role=role)
