"""Conditional requests (RFC 9110 §13): `If-Match` and `If-None-Match`, evaluated in one place.

A GET is evaluated by the endpoint against the `ETag` of the answer. A handler that changes a resource takes
`conditions: Conditions` and calls `check` with the tag of what it has locked, in the transaction that changes it.
"""

import re
from collections.abc import Iterable
from typing import Literal

from backstay.http.problems import BadRequest, PreconditionFailed

_ONE = rb'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"'
_TAG = re.compile(_ONE)
# Possessive, so that no text makes it try twice: a list of tags, empty elements among them (RFC 9110 §5.6.1).
_LIST = re.compile(rb"[ \t,]*+(?:" + _ONE + rb"[ \t]*+(?:,[ \t,]*+|$))++")

Tags = tuple[str, ...] | Literal["*"] | None
"""Entity tags of a field as they were sent, `*` for any, None if the field wasn't sent."""


def version_tag(version: int) -> str:
    """Return the strong entity tag of a resource's version."""
    return f'"{version}"'


class Conditions:
    """The preconditions of one request."""

    __slots__ = ("if_match", "if_none_match")

    def __init__(self, if_match: Tags = None, if_none_match: Tags = None) -> None:
        self.if_match = if_match
        self.if_none_match = if_none_match

    def __repr__(self) -> str:
        return f"Conditions(if_match={self.if_match!r}, if_none_match={self.if_none_match!r})"

    @classmethod
    def of(cls, fields: Iterable[tuple[bytes, bytes]]) -> "Conditions":
        """Read a request's header fields, names in lower case. Raises `BadRequest` for what is no list of tags."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in fields:
            if name in (b"if-match", b"if-none-match"):
                found.setdefault(name, []).append(value)
        return cls(*(_tags(name, found.get(name)) for name in (b"if-match", b"if-none-match")))

    def check(self, etag: str | None) -> None:
        """Let a change go on, or refuse it. `etag` is the current tag; None if there is nothing yet.

        Raises:
            PreconditionFailed: `If-Match` names no current tag by strong comparison, or `If-None-Match` names it by
                weak comparison.
        """
        if self.if_match is not None and not self._matches(etag):
            raise _failed("If-Match", etag)
        if self.if_none_match is not None and self._none_matches_not(etag):
            raise _failed("If-None-Match", etag)

    def is_not_modified(self, etag: str) -> bool:
        """Decide on a read of what has this tag: True if the client has it already (304).

        Raises:
            PreconditionFailed: `If-Match` names another one.
        """
        if self.if_match is not None and not self._matches(etag):
            raise _failed("If-Match", etag)
        return self.if_none_match is not None and self._none_matches_not(etag)

    def check_untagged(self) -> None:
        """Refuse a change of a resource that has no tags, unless no tag is asked for."""
        if self.if_match not in (None, "*"):
            raise PreconditionFailed("If-Match: this resource has no entity tag")

    def _matches(self, etag: str | None) -> bool:
        if etag is None:
            return False
        return self.if_match == "*" or (not etag.startswith("W/") and etag in (self.if_match or ()))

    def _none_matches_not(self, etag: str | None) -> bool:
        if etag is None:
            return False
        return self.if_none_match == "*" or _opaque(etag) in map(_opaque, self.if_none_match or ())


NO_CONDITIONS = Conditions()

TAGGED = {304: "The client has it already", 412: "If-Match does not hold"}
"""What a read of something with an ETag may answer, for its route's `answers`."""


def _tags(name: bytes, values: list[bytes] | None) -> Tags:
    if values is None:
        return None
    joined = b",".join(values).strip()
    if joined == b"*":
        return "*"
    if not _LIST.fullmatch(joined):
        shown = name.decode().title()
        raise BadRequest(f'{shown} is `*` or a list of entity tags, such as "1", W/"2" (RFC 9110 §8.8.3)')
    return tuple(tag.decode("latin-1") for tag in _TAG.findall(joined))


def _opaque(etag: str) -> str:
    return etag.removeprefix("W/")


def _failed(field: str, etag: str | None) -> PreconditionFailed:
    now = "there is nothing here yet" if etag is None else f"the current entity tag is {etag}"
    return PreconditionFailed(f"{field}: {now}; read the resource again", headers={"ETag": etag} if etag else None)


__all__ = ["NO_CONDITIONS", "TAGGED", "Conditions", "version_tag"]
