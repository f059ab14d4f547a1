"""A record on its way through a consumer: read once, then handled, or parked with its cause."""

import hashlib
from datetime import datetime
from uuid import UUID

from backstay.messaging.envelope import Envelope
from backstay.messaging.errors import Unreadable
from backstay.messaging.event import Event
from backstay.messaging.handlers import Handlers, Registration
from backstay.messaging.record import Record


class Delivery:
    """One record that concerns us.

    id: the event's, or one made from the record where it carries none; fault: why it can only be parked; held: an
    earlier record of its key is parked, so this one is too; ours: it is of a type that is handled, readable or not.
    """

    __slots__ = ("attempts", "envelope", "event", "fault", "held", "id", "ours", "record", "registration")

    def __init__(
        self,
        record: Record,
        id: UUID,  # noqa: A002
        registration: Registration | None = None,
        envelope: Envelope | None = None,
        event: Event | None = None,
        fault: Exception | None = None,
        *,
        ours: bool = True,
    ) -> None:
        self.record = record
        self.id = id
        self.registration = registration
        self.envelope = envelope
        self.event = event
        self.fault = fault
        self.held = False
        self.ours = ours
        self.attempts = 1

    @property
    def place(self) -> tuple[str, bytes] | None:
        """Topic and key, within which order counts; None if it has none."""
        return None if self.record.key is None or not self.ours else (self.record.topic, self.record.key)

    @property
    def may_share(self) -> bool:
        """True if it can share a transaction with its neighbours."""
        return self.fault is not None or (self.registration is not None and self.registration.may_share)


def read(record: Record, handlers: Handlers) -> Delivery | None:
    """Return the delivery in a record; None if its type has no handler here."""
    type_ = record.header("ce_type")
    if not type_:
        fault = Unreadable("header 'ce_type' is missing: the record is no event of ours")
        return Delivery(record, _made_id(record), fault=fault, ours=False)
    registration = handlers.find(type_)
    if registration is None:
        return None
    envelope = None
    try:
        envelope = Envelope.read(record)
        if record.value is None:
            raise Unreadable(f"a tombstone is no {registration.type!r}: it has no data")
        event = registration.decode(record.value)
    except Exception as error:  # noqa: BLE001  # whatever reading raises, the record is at fault
        return _unreadable(record, envelope, error)
    return Delivery(record, envelope.id, registration, envelope, event)


def _unreadable(record: Record, envelope: Envelope | None, error: Exception) -> Delivery:
    return Delivery(record, _made_id(record) if envelope is None else envelope.id, envelope=envelope, fault=error)


def _made_id(record: Record) -> UUID:
    """Return the same for every delivery of the record, and for no other record."""
    place = f"{record.topic}/{record.partition}/{record.offset}/{_stamp(record.timestamp)}"
    digest = hashlib.sha256(place.encode())
    for part in (record.key, record.value, *(value for _, value in record.headers)):
        digest.update(b"\0" if part is None else b"\1%d:%b" % (len(part), part))
    return UUID(bytes=digest.digest()[:16], version=5)


def _stamp(time: datetime | None) -> str:
    return "" if time is None else time.isoformat()


def words(error: BaseException) -> str:
    """Return the cause of a failure as it is stored: kind and message, without characters that a database refuses."""
    text = f"{type(error).__name__}: {error}".replace("\0", "\\0")
    return text.encode("utf-8", "backslashreplace").decode()[:4000]
