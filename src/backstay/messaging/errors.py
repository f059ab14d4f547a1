"""Errors of messaging.

MessagingError
├── Unreadable          a record cannot be read as the event it should be
├── BrokerUnavailable   (also ConnectionError) the broker cannot be reached
├── TopicError          a topic could not be created or does not exist
├── Fenced              a newer producer has the transactional id
├── TransactionLost     nobody knows yet how a transaction ended
└── PublishError        one record was not acknowledged; `kind` says whose fault it was
"""

from typing import Literal

from backstay.errors import BackstayError

PublishFault = Literal["retriable", "record", "producer"]


class MessagingError(BackstayError):
    """Something about messages went wrong."""


class Unreadable(MessagingError):
    """The record cannot be read as an event."""


class BrokerUnavailable(MessagingError, ConnectionError):
    """The broker cannot be reached."""


class TopicError(MessagingError):
    """A topic could not be created or does not exist."""


class Fenced(MessagingError):
    """A newer producer has taken the transactional id: this one may send nothing more."""


class TransactionLost(MessagingError):
    """The end of the transaction is unknown: open the id again and read its marks."""


class PublishError(MessagingError):
    """The record was not acknowledged by the broker.

    kind:
        `retriable`: nothing is wrong with the record, send it again later;
        `record`: the broker will never take this record;
        `producer`: the producer was lost and has been replaced, send everything unacknowledged again.
    """

    def __init__(self, kind: PublishFault, reason: str) -> None:
        super().__init__(reason)
        self.kind: PublishFault = kind
