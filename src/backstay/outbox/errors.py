"""Errors of the outbox.

OutboxError(BackstayError)
├── VersionConflict    another transaction has published this version of the aggregate
└── UnusableEvent      an event can't be written: its key, payload, topic or headers are refused
"""

from backstay.errors import BackstayError


class OutboxError(BackstayError):
    """The outbox can't carry out the operation."""


class UnusableEvent(OutboxError, ValueError):
    """An event can't be written to the outbox. Raised before anything is written, and names the event."""


class VersionConflict(OutboxError):
    """Another transaction has published an event with this version of the aggregate."""
