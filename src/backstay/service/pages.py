"""Lists are pages: `{"items": [...], "next": cursor or null}`. A cursor is opaque, and checked when it comes back."""

import base64
import binascii
from typing import Any, Generic, TypeVar

import msgspec

from backstay.service.problems import FieldError, Unprocessable

T = TypeVar("T")

MAX_CURSOR = 512
"""Characters; a longer cursor was not made by us."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list."""

    items: list[T]
    next: str | None = None
    """Give it as `cursor` to get the following page; null on the last one."""


def encode_cursor(*position: Any) -> str:
    """The position after which the next page starts (the sort key of the last item), as an opaque string."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, *types: Any) -> tuple[Any, ...] | None:
    """The position in a cursor made by `encode_cursor` with values of these types; None for no cursor.

    Raises:
        Unprocessable: the cursor was not made by us.
    """
    if cursor is None:
        return None
    try:
        if len(cursor) > MAX_CURSOR:
            raise ValueError("too long")
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if b"\\u0000" in raw:
            raise ValueError("no text of ours holds a NUL")
        return msgspec.json.decode(raw, type=tuple[types])  # type: ignore[valid-type]
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
        reason = "not a cursor of this list; use the `next` of the page before"
        raise Unprocessable(errors=[FieldError("/query/cursor", reason)], slug="bad-cursor") from None


__all__ = ["MAX_CURSOR", "Page", "decode_cursor", "encode_cursor"]
