"""The head of an upstream's answer as it goes to the client."""

from collections.abc import Set
from enum import Enum

from backstay.http.connection import NO_BODY, ResponseHead
from backstay.http.framing import RequestHead


class Framing(Enum):
    """How the end of an answer's body is marked for the client."""

    NONE = "no body"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "the end of the connection"


def framing_of(answer: ResponseHead, request: RequestHead) -> Framing:
    """Return how the body of this answer is delimited for this client."""
    if request.method == b"HEAD" or answer.status in NO_BODY:
        return Framing.NONE
    if answer.length is not None and not answer.chunked:
        return Framing.LENGTH
    return Framing.CLOSE if request.version == "1.0" else Framing.CHUNKED


def head_lines(answer: ResponseHead, dropped: Set[bytes]) -> list[bytes]:
    """Return the header lines that pass, in pieces."""
    if answer.connection:
        dropped = dropped | _ended_here(answer.connection)
    if answer.status == 204:
        dropped = dropped | {b"content-length"}
    lines: list[bytes] = []
    for name, value in answer.fields:
        if name not in dropped:
            lines += (name, b": ", value, b"\r\n")
    return lines


def _ended_here(connection: bytes) -> Set[bytes]:
    """Return the headers that the upstream's Connection header names, without those that describe the body."""
    return {part.strip().lower() for part in connection.split(b",")} - {b"content-length", b"content-type"}
