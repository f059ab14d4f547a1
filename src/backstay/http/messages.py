"""Requests and answers as values."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
"""The first line of an answer by status code."""


def status_line(status: int) -> bytes:
    """Return the first line of an answer, also for codes that have no name."""
    return STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Headers:
    """Header fields in order, found by name whatever its case."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Sequence[tuple[str, str]] = ()) -> None:
        self._fields = tuple(fields)

    def get(self, name: str, default: str | None = None) -> str | None:
        """Return the first value of this name."""
        wanted = name.lower()
        return next((value for key, value in self._fields if key.lower() == wanted), default)

    def get_all(self, name: str) -> list[str]:
        """Every value of this name, in order."""
        wanted = name.lower()
        return [value for key, value in self._fields if key.lower() == wanted]

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    def items(self) -> tuple[tuple[str, str], ...]:
        """Every field as it came."""
        return self._fields

    def __repr__(self) -> str:
        return f"Headers({list(self._fields)!r})"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A whole request as our small server hands it to its handler."""

    method: str
    path: str
    """The path as sent, percent-encoded, without the query."""
    query: str
    headers: Headers
    body: bytes = b""
    peer: str = ""
    """The address of the other end."""


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole answer of our small server; Content-Length is added."""

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = field(default=())
    content_type: str | None = None


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A whole answer as the client hands it to its caller."""

    status: int
    headers: Headers
    body: bytes
