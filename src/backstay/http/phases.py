"""The phases of an inbound connection, and the seconds that a client has in each."""

from dataclasses import dataclass
from enum import IntEnum

from backstay.http.framing import LINGER_SECONDS

MIN_RATE = 240.0
"""Bytes a second, measured over a time-out, below which a client is given up; Kestrel's minimum data rate."""
NEVER = float("inf")


class Phase(IntEnum):
    """The life of a connection.

    CONNECTED ─► HEAD ─► EXCHANGE ─┬────────────────► IDLE ─► HEAD ─► …
                                   ├─► SENDING ──────► IDLE
                                   ├─► DISCARDING ───► IDLE
                                   ├─► LINGERING ─┐
                                   └──────────────┴─► CLOSING ─► CLOSED

    From every phase CLOSED can be reached at once: the client may leave at any time.
    """

    CONNECTED = 0
    """Accepted; nothing has arrived. → HEAD, CLOSING"""
    IDLE = 1
    """Between requests. → HEAD, CLOSING"""
    HEAD = 2
    """A request has begun to arrive. → EXCHANGE, LINGERING"""
    EXCHANGE = 3
    """A request is being answered. → SENDING, DISCARDING, IDLE, HEAD, LINGERING, CLOSING"""
    SENDING = 4
    """The answer is written and the client has yet to take it. → EXCHANGE, HEAD, IDLE"""
    DISCARDING = 5
    """The answer is written, and the rest of its unwanted body is read away. → IDLE, HEAD, EXCHANGE, LINGERING"""
    LINGERING = 6
    """Closed by us for sending; the client may still read why. → CLOSING"""
    CLOSING = 7
    """Closed for reading, too; what was written leaves. → CLOSED"""
    CLOSED = 8
    """Gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds that a client has. What it sends and takes is measured against `MIN_RATE`."""

    head: float = 10.0
    """From the first byte of a request to the end of its head; also from the connection to the first byte."""
    idle: float = 60.0
    """Between requests."""
    body: float = 15.0
    """Over which the arrival of a body is measured."""
    stall: float = 30.0
    """Over which the taking of an answer is measured, also while the connection closes."""
    linger: float = LINGER_SECONDS
    """To read why it was refused."""

    def by_phase(self) -> tuple[float, ...]:
        """Return the deadline of each phase; `inf` where the exchange, `body` or `stall` decides."""
        table = {
            Phase.CONNECTED: self.head,
            Phase.IDLE: self.idle,
            Phase.HEAD: self.head,
            Phase.EXCHANGE: NEVER,
            Phase.SENDING: NEVER,
            Phase.DISCARDING: self.body,
            Phase.LINGERING: self.linger,
            Phase.CLOSING: self.stall,
            Phase.CLOSED: NEVER,
        }
        return tuple(table[phase] for phase in Phase)


__all__ = ["MIN_RATE", "NEVER", "Phase", "Timeouts"]
