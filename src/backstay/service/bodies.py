"""JSON bodies: read as their model, with nothing in them that has no effect.

A body is refused with the JSON pointer of every field that its model doesn't have, and of every name that stands twice
in one object (RFC 8259 §4 leaves its meaning open, so two readers may see two bodies). Tolerant routes, whose callers
are services of the same system, read past both: a newer caller may send more than they know.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from functools import lru_cache
from typing import Any

import msgspec

from backstay.http.problems import BadRequest, FieldError, Unprocessable, UnsupportedMedia

MAX_ERRORS = 20
"""Wrong fields named in one answer."""

_AT = re.compile(r"^(.*?) - at (?:`key` in )?`\$(.*)`$", re.DOTALL)
_FIELD = re.compile(r"(?:missing required|contains unknown) field `(.+)`$")
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+)\]")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_CHARSET = re.compile(r"charset=\"?([^\";]*)\"?", re.IGNORECASE)

_untyped = msgspec.json.Decoder(float_hook=str)
"""Reads any JSON, also numbers that no float can hold."""


def check_json(headers: Mapping[bytes, bytes]) -> None:
    """Raise `UnsupportedMedia` unless the body is declared as JSON in UTF-8, or not declared, and has no coding."""
    check_coding(headers)
    given = headers.get(b"content-type")
    if given is None or given == b"application/json":
        return
    declared, _, parameters = given.partition(b";")
    media = declared.strip().lower()
    if media != b"application/json" and not (media.startswith(b"application/") and media.endswith(b"+json")):
        raise _unsupported(f"content-type is {_shown(media)!r}; send application/json")
    charset = _CHARSET.search(parameters.decode("latin-1"))
    if charset is not None and charset[1].strip().lower() not in ("utf-8", "utf8", "us-ascii"):
        raise _unsupported(f"charset is {charset[1][:100]!r}; JSON is sent in UTF-8 (RFC 8259 §8.1)")


def check_coding(headers: Mapping[bytes, bytes]) -> None:
    """Raise `UnsupportedMedia` for a content coding: none is undone here (RFC 9110 §15.5.16)."""
    coding = headers.get(b"content-encoding")
    if coding is not None and coding.strip().lower() not in (b"", b"identity"):
        detail = f"content-encoding is {_shown(coding)!r}; send the body without a coding"
        raise UnsupportedMedia(detail, headers={"Accept-Encoding": "identity"})


def _unsupported(detail: str) -> UnsupportedMedia:
    return UnsupportedMedia(detail, headers={"Accept": "application/json"})


def _shown(value: bytes) -> str:
    return value.decode("latin-1")[:100]


def decode_body(decoder: msgspec.json.Decoder[Any], body: bytes, *, tolerant: bool = False) -> Any:
    """Return the body as its model.

    Raises:
        BadRequest: it is not JSON.
        Unprocessable: it is JSON of another shape (the first wrong field is named), holds U+0000, or, unless
            `tolerant`, has fields that the model doesn't have, or a name twice in one object.
    """
    try:
        value = _decoded(decoder, body)
    except msgspec.ValidationError as error:
        _read(body)  # the decoder stops at the first wrong field; what follows may be no JSON at all
        raise Unprocessable(errors=[field_error(error)]) from None
    if b"\\u0000" in body and _NUL.search(body):
        pointer = _pointer_to_nul(_read(body)) or ""
        raise Unprocessable(errors=[FieldError(pointer, "the character U+0000 is not allowed in text")])
    if not tolerant:
        refuse_surplus(value, body)
    return value


def refuse_no_body(body: bytes) -> None:
    """Raise `Unprocessable` unless the body of a request that takes none says nothing: it is empty, or `{}`."""
    if body and _read(body) not in ({}, None):
        raise Unprocessable(errors=[FieldError("", "this request takes no body; send none")])


def refuse_surplus(value: Any, body: bytes) -> None:
    """Raise `Unprocessable` for unknown fields, else for names that stand twice in an object of `body`."""
    sent = _read(body)
    colons = body.count(b":")
    if _known_members(value, sent) == colons:
        return  # each colon belongs to a member that the model has, and none was replaced by a later one
    if unknown := list(_unknown(value, sent, "")):
        raise Unprocessable(errors=unknown[:MAX_ERRORS])
    if colons == _member_count(sent):
        return
    try:
        _parse(body, _once)
    except _Repeated:
        repeated = list(_repeated(_parse(body, _Members), ""))
        raise Unprocessable(errors=repeated[:MAX_ERRORS]) from None


def _read(body: bytes) -> Any:
    """Any JSON as plain values; raises `Unprocessable` for an integer that is too long to be one."""
    try:
        return _decoded(_untyped, body)
    except msgspec.ValidationError as error:
        raise Unprocessable(errors=[field_error(error)]) from None


def _decoded(decoder: Any, body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        detail = "the body is empty; send JSON" if not body else f"the body is not JSON: {error}"
        raise BadRequest(detail, slug="malformed-json", title="Malformed JSON") from None
    except ArithmeticError as error:  # from a model's own check: a decimal with an exponent of millions
        raise Unprocessable(errors=[FieldError("", f"holds a number that is out of range ({error})")]) from None


@lru_cache(maxsize=1024)
def _names(kind: Any) -> dict[str, str] | None:
    """Return the name of each field in JSON, and its attribute; None for a type without fields."""
    if issubclass(kind, msgspec.Struct):
        found = {field.encode_name: field.name for field in msgspec.structs.fields(kind)}
        tag = kind.__struct_config__.tag_field
        return {**found, tag: ""} if tag else found
    return {field.name: field.name for field in dataclass_fields(kind)} if is_dataclass(kind) else None


def _unknown(value: Any, sent: Any, pointer: str) -> Iterator[FieldError]:
    """Every field of `sent` that the decoded `value` has no place for."""
    kind: Any = type(value)
    if isinstance(sent, dict):
        if (names := _names(kind)) is not None:
            yield from _unknown_fields(value, names, sent, pointer)
        elif isinstance(value, dict):
            if surplus := sent.keys() - value.keys():
                # Keys that were converted have no counterpart by name; a TypedDict drops what it doesn't know.
                if all(isinstance(name, str) for name in value):
                    yield from (_not_a_field(pointer, name, value) for name in sorted(surplus))
                return
            for name, part in sent.items():
                yield from _unknown(value[name], part, f"{pointer}/{_escaped(name)}")
    elif isinstance(sent, list) and isinstance(value, (list, tuple)) and len(sent) == len(value):
        for index, (part, sent_part) in enumerate(zip(value, sent, strict=True)):
            if isinstance(sent_part, (dict, list)):
                yield from _unknown(part, sent_part, f"{pointer}/{index}")


def _unknown_fields(value: Any, names: dict[str, str], sent: dict[str, Any], pointer: str) -> Iterator[FieldError]:
    for name, part in sent.items():
        attribute = names.get(name)
        if attribute is None:
            yield _not_a_field(pointer, name, names)
        elif attribute and isinstance(part, (dict, list)):
            yield from _unknown(getattr(value, attribute), part, f"{pointer}/{_escaped(name)}")


def _not_a_field(pointer: str, name: str, allowed: Mapping[str, Any]) -> FieldError:
    return FieldError(f"{pointer}/{_escaped(name[:100])}", f"is not a field here; there are {', '.join(allowed)}")


def _known_members(value: Any, sent: Any) -> int:
    """Return the number of members in `sent`, or -1 unless it is plain that the model has all of them."""
    count = 0
    if type(sent) is list:
        if type(value) is not list or len(value) != len(sent):
            return -1
        for part, sent_part in zip(value, sent, strict=True):
            if type(sent_part) is dict or type(sent_part) is list:
                below = _known_members(part, sent_part)
                if below < 0:
                    return -1
                count += below
        return count
    kind: Any = type(value)
    names = _names(kind)
    if type(sent) is not dict or names is None:
        return -1
    for name, part in sent.items():
        attribute = names.get(name)
        if attribute is None:
            return -1
        if attribute and (type(part) is dict or type(part) is list):
            below = _known_members(getattr(value, attribute), part)
            if below < 0:
                return -1
            count += below
    return count + len(sent)


def _member_count(sent: Any) -> int:
    if isinstance(sent, dict):
        return len(sent) + sum(_member_count(part) for part in sent.values() if isinstance(part, (dict, list)))
    if isinstance(sent, list):
        return sum(_member_count(part) for part in sent if isinstance(part, (dict, list)))
    return 0


class _Repeated(Exception):
    """A name stands twice in one object."""


class _Members(list[tuple[str, Any]]):
    """An object as the list of its members, repetitions included."""


def _once(members: list[tuple[str, Any]]) -> None:
    if len(members) > 1 and len(dict(members)) != len(members):
        raise _Repeated


def _parse(body: bytes, hook: Any) -> Any:
    """Parse with the standard library, the one reader at hand that shows an object's members as they stand."""
    try:
        return json.JSONDecoder(object_pairs_hook=hook, parse_int=str, parse_float=str).decode(body.decode())
    except RecursionError:
        raise BadRequest("the body is nested too deeply", slug="malformed-json", title="Malformed JSON") from None


def _repeated(value: Any, pointer: str) -> Iterator[FieldError]:
    if isinstance(value, _Members):
        seen: set[str] = set()
        for name, part in value:
            here = f"{pointer}/{_escaped(name)}"
            if name in seen:
                yield FieldError(here, "stands twice in its object; send it once")
            seen.add(name)
            yield from _repeated(part, here)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _repeated(part, f"{pointer}/{index}")


def _pointer_to_nul(value: Any) -> str | None:
    """Return where the first text with U+0000 is; a name that holds one is pointed to by the object it is in."""
    if isinstance(value, str):
        return "" if "\0" in value else None
    if isinstance(value, dict):
        if any("\0" in name for name in value):
            return ""
        parts = [(_escaped(name), part) for name, part in value.items()]
    else:
        parts = [(str(index), part) for index, part in enumerate(value)] if isinstance(value, list) else []
    for step, part in parts:
        if (rest := _pointer_to_nul(part)) is not None:
            return f"/{step}{rest}"
    return None


def _escaped(name: str) -> str:
    """Return a member's name as a step of a JSON pointer (RFC 6901 §3)."""
    return name.replace("~", "~0").replace("/", "~1")


def field_error(error: msgspec.ValidationError) -> FieldError:
    """Return where and why, from the text of a msgspec error (`... - at `$.lines[0].quantity``)."""
    found = _AT.match(str(error))
    reason, path = found.groups() if found else (str(error), "")
    pointer = "".join("/" + (name or index) for name, index in _STEP.findall(path.replace("[...]", "")))
    if named := _FIELD.search(reason):
        pointer += "/" + _escaped(named.group(1))
    return FieldError(pointer, reason)


__all__ = ["MAX_ERRORS", "check_coding", "check_json", "decode_body", "field_error", "refuse_no_body", "refuse_surplus"]
