"""The head of an upstream's answer as it goes to the client."""

from collections.abc import Container, Iterable
from enum import Enum

from backstay.gateway.headers import ResponseNames
from backstay.http.connection import NO_BODY, ResponseHead
from backstay.http.framing import RequestHead


class Framing(Enum):
    """How the client finds the end of the answer."""

    NONE = "no body"
    LENGTH = "content-length"
    CHUNKED = "chunked"
    CLOSE = "the end of the connection"


def framing_of(answer: ResponseHead, request: RequestHead) -> Framing:
    """How the body of this answer is delimited for this client."""
    if request.method == b"HEAD" or answer.status in NO_BODY:
        return Framing.NONE
    if answer.length is not None and not answer.chunked:
        return Framing.LENGTH
    return Framing.CLOSE if request.version == "1.0" else Framing.CHUNKED


def head_lines(answer: ResponseHead, names: ResponseNames, dropped: Container[bytes]) -> Iterable[bytes]:
    """The header lines that pass, in pieces."""
    fields = answer.fields
    ended = _ended_here(answer)
    if answer.status == 204:
        ended |= {b"content-length"}
    lines: list[bytes] = []
    passes = names.passes
    for name, value in fields:
        lower = passes(name)
        if lower is not None and lower not in dropped and lower not in ended:
            lines += (name, b": ", value, b"\r\n")
    return lines


def _ended_here(answer: ResponseHead) -> frozenset[bytes]:
    """The headers that the upstream's Connection header names."""
    for name, value in answer.fields:
        if len(name) == 10 and name.lower() == b"connection":
            named = frozenset(part.strip().lower() for part in value.split(b","))
            return named - {b"content-length", b"content-type"}
    return frozenset()
