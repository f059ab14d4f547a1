"""From users and sessions to the events that others learn of them by."""

from datetime import datetime, timedelta
from uuid import UUID

from shop.auth.model import User
from shop.contracts.users import SessionRevoked, UserRegistered, UserRegistrationRepeated

LEEWAY = timedelta(seconds=60)
"""Clocks may differ: a revoked session is refused a little longer than its last token lives."""


def registered(user: User) -> UserRegistered:
    """Return the event of a new account."""
    return UserRegistered(user_id=user.id, email=user.email, name=user.name, at=user.created_at)


def repeated(user: User, at: datetime) -> UserRegistrationRepeated:
    """Return the event of a registration with an address that has an account."""
    return UserRegistrationRepeated(user_id=user.id, email=user.email, at=at)


def revoked(user_id: UUID, session_id: UUID, reason: str, at: datetime, token_life: float) -> SessionRevoked:
    """A session ended; its access tokens count no longer."""
    until = at + timedelta(seconds=token_life) + LEEWAY
    return SessionRevoked(user_id=user_id, sid=session_id, until=until, reason=reason, at=at)
