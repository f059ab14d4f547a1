"""Lists are pages: `{"items": [...], "next": cursor or null}`. A cursor is opaque, and checked when it comes back.

A feed is a list that has no end: `{"items": [...], "cursor": cursor or null, "more": true or false}`.
"""

import base64
import binascii
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import msgspec

from backstay.http.problems import FieldError, Unprocessable

T = TypeVar("T")

MAX_CURSOR = 512
"""Characters; a longer cursor was not made by us."""


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list."""

    items: list[T]
    next: str | None = None
    """Give it as `cursor` to get the following page; null on the last one."""


class Feed(msgspec.Struct, Generic[T], frozen=True):
    """The next part of a list of changes, oldest first. An item that changed again is listed again."""

    items: list[T]
    cursor: str | None
    """Give it as `since` to get what changed afterwards, now or at any later time; null while nothing ever changed."""
    more: bool
    """Whether there is more already."""

    @classmethod
    def of(cls, found: Sequence[tuple[tuple[Any, ...], T]], *, since: str | None, limit: int) -> "Feed[T]":
        """Return the feed after `since`, of up to `limit` + 1 items found there, each with its position."""
        shown = found[:limit]
        cursor = encode_cursor(*shown[-1][0]) if shown else since
        return cls([item for _, item in shown], cursor, len(found) > limit)


def encode_cursor(*position: Any) -> str:
    """Return the position after which the next page starts (the sort key of the last item), as an opaque string."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def decode_cursor(cursor: str | None, *types: Any, name: str = "cursor") -> tuple[Any, ...] | None:
    """Return the position in a cursor made by `encode_cursor` with values of these types; None for no cursor.

    `name` is the query parameter that carried it.

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
        reason = "not a cursor of this list; use the one of the page before"
        raise Unprocessable(errors=[FieldError(f"/query/{name}", reason)], slug="bad-cursor") from None


__all__ = ["MAX_CURSOR", "Feed", "Page", "decode_cursor", "encode_cursor"]
