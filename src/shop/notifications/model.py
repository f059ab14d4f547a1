"""A notification: one message about one event. Pure.

A message is sent at least once: whoever dies between the mail server's yes and our own record sends it again, under
the same Message-ID. It is recorded as sent, and published, exactly once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

FIRST_PAUSE = 1.0  # seconds until a second attempt; doubles with each
LONGEST_PAUSE = 60.0  # seconds between two attempts at most


REFUNDED = "refunded"
"""The reason of an order that ended because its payment was refunded at the provider: `Kind.REFUNDED` tells of both."""


class Kind(StrEnum):
    """Kinds of messages."""

    WELCOME = "welcome"
    REGISTERED_AGAIN = "registered-again"
    PAYMENT_PENDING = "payment-pending"
    CONFIRMED = "confirmed"
    CANCELLED = "cancelled"
    REFUNDED = "refunded"


class State(StrEnum):
    """The life of a notification."""

    PENDING = "pending"  # waits for its address or its turn -> sent, failed
    SENT = "sent"  # a mail server took it; final
    FAILED = "failed"  # a mail server refused it for good; final


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """A message to send, and the event that causes it."""

    id: UUID
    event_id: UUID
    kind: Kind
    customer_id: UUID
    order_id: UUID | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A notice whose turn has come, with its address; `attempts` counts this one too."""

    notice: Notice
    email: str
    name: str
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """A notification as its customer sees it."""

    id: UUID
    kind: Kind
    state: State
    order_id: UUID | None
    created_at: datetime
    sent_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """A message for the auditor's comparison."""

    id: UUID
    order_id: UUID | None
    kind: Kind
    state: State


@dataclass(frozen=True, slots=True)
class Sent:
    """A mail server took the message."""

    due: Due


@dataclass(frozen=True, slots=True)
class Refused:
    """A mail server will never take it."""

    due: Due
    reason: str


@dataclass(frozen=True, slots=True)
class Deferred:
    """The mail server did not take it this time."""

    due: Due
    reason: str

    @property
    def pause(self) -> float:
        """Seconds until the next attempt."""
        return pause(self.due.attempts)


Outcome = Sent | Refused | Deferred


def pause(attempts: int) -> float:
    """Seconds to wait after that many attempts: doubling, up to a limit, for ever."""
    return min(FIRST_PAUSE * 2.0 ** min(attempts - 1, 30), LONGEST_PAUSE)
