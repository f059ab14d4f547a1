"""What a handler gives back, and how it becomes bytes: msgspec, once, without validating what is ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec

T = TypeVar("T")

JSON = "application/json"

encode_json = msgspec.json.Encoder(decimal_format="string").encode
"""Any body as JSON bytes: decimals as strings, times as RFC 3339, ids in canonical form."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """A body with a status and headers of its own. `bytes` are sent as they are."""

    body: T | bytes | None
    """What is sent; None sends no body."""
    status: int = 200
    """The HTTP status."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers to send besides content-type and content-length (which may be given too)."""

    def content(self) -> bytes:
        """Return the body as it goes out."""
        return encode(self.body)


def encode(body: Any) -> bytes:
    """Return a handler's result as bytes: None is nothing, bytes are themselves, everything else is JSON."""
    if body is None:
        return b""
    if isinstance(body, bytes):
        return body
    return encode_json(body)


__all__ = ["JSON", "Answer", "encode", "encode_json"]
