"""Events of auth: who exists, and whose session ended before its token did."""

from datetime import datetime
from uuid import UUID

from backstay.messaging import Event


class UserRegistered(Event, topic="users", type="user.registered", key="user_id"):
    """A customer registered."""

    user_id: UUID
    email: str
    name: str
    at: datetime


class UserRegistrationRepeated(Event, topic="users", type="user.registration-repeated", key="user_id"):
    """A registration with a known address: its owner gets a mail, the caller the usual answer."""

    user_id: UUID
    email: str
    at: datetime


class SessionRevoked(Event, topic="users", type="session.revoked", key="user_id"):
    """A session ended; access tokens with this `sid` are refused until `until`, when the last of them expires."""

    user_id: UUID
    sid: UUID
    until: datetime
    reason: str
    at: datetime
