"""The list of a registry as a client reads it: unpacked within a bound, decoded instance by instance.

Decoding 20,000 instances in one call would hold the interpreter for a quarter of a second, whatever thread makes it. So
the outer layers are walked here, and only one instance at a time is given to the decoder: in a thread of its own this
leaves the event loop its turn every few milliseconds.
"""

import codecs
import json
import time
import zlib
from collections.abc import Iterator, Mapping
from json.decoder import WHITESPACE  # type: ignore[attr-defined]
from typing import Any

from backstay.discovery.errors import BadInstance
from backstay.discovery.instance import STATUSES, UNKNOWN, UP, Instance
from backstay.discovery.limits import MAX_LIST

_CHUNK = 256 * 1024  # bytes unpacked in one step
_TURN = 50  # instances decoded in one turn
_GZIP = 16 + zlib.MAX_WBITS
_MAX_PORT = 65_535
_DECODER = json.JSONDecoder()
_skip = WHITESPACE.match


def read_list(body: bytes, encoding: str | None, *, limit: int = MAX_LIST) -> dict[str, list[Instance]]:
    """Return the instances of a fetch by application in lower case, each list in the order of ids.

    Args:
        body: the answer as it came.
        encoding: its Content-Encoding: None or `gzip`.
        limit: bytes that it may have when it is unpacked.

    Raises:
        BadInstance: it is no such answer, or longer than the limit. A single instance that can't be read is left out.
    """
    return read_applications("".join(_text(body, encoding, limit)))


def read_applications(text: str) -> dict[str, list[Instance]]:
    """Return the same, of the text."""
    found: dict[str, list[Instance]] = {}
    try:
        for number, fields in enumerate(_instances(text)):
            if number % _TURN == 0:
                time.sleep(0)  # lets another thread have the interpreter, and the event loop its turn
            instance = _instance(fields)
            if instance is not None:
                found.setdefault(instance.app, []).append(instance)
    except (ValueError, RecursionError, StopIteration, IndexError) as error:
        raise BadInstance("the answer is not a list of applications in JSON") from error
    for instances in found.values():
        instances.sort(key=lambda each: each.id)
    return found


def _text(body: bytes, encoding: str | None, limit: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    size = 0
    try:
        for chunk in _unpacked(body, encoding):
            size += len(chunk)
            if size > limit:
                raise BadInstance(f"the answer has more than {limit} bytes")
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
    except (zlib.error, EOFError, UnicodeDecodeError) as error:
        raise BadInstance("the answer can't be unpacked, or isn't UTF-8") from error


def _unpacked(body: bytes, encoding: str | None) -> Iterator[bytes]:
    if encoding is None or encoding.lower() == "identity":
        for start in range(0, len(body), _CHUNK):
            yield body[start : start + _CHUNK]
        return
    if encoding.lower() not in ("gzip", "x-gzip"):
        raise BadInstance(f"the answer is encoded as {encoding[:20]!r}, which wasn't asked for")
    unpacker = zlib.decompressobj(_GZIP)
    while not unpacker.eof:
        chunk = unpacker.decompress(body, _CHUNK)
        body = unpacker.unconsumed_tail
        if not chunk and not body and not unpacker.eof:
            raise EOFError
        yield chunk


def _instances(text: str) -> Iterator[Mapping[str, Any]]:
    """Each object at applications.application[].instance[]; one that is alone may stand in place of its list."""
    walk = _Walk(text)
    found = 0
    for _ in walk.inside("applications", needed=True):
        found += 1
        for _ in walk.inside("application", needed=True):
            for _ in walk.items():
                for _ in walk.inside("instance"):
                    for _ in walk.items():
                        value = walk.value()
                        if isinstance(value, dict):
                            yield value
    walk.end()
    if not found:
        raise ValueError("there are no applications")


class _Walk:
    """A place in a JSON text that moves forward over keys, items and whole values."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value(self) -> Any:
        """Decode the value that begins here."""
        value, self._at = _DECODER.raw_decode(self._text, self._next())
        return value

    def inside(self, name: str, *, needed: bool = False) -> Iterator[None]:
        """Yield the values of that name in the object that begins here, each as the next value; others are skipped.

        Where there is no object, it is passed over, too, or a ValueError if it is needed.
        """
        if not self._takes("{"):
            if needed:
                raise ValueError("an object was expected")
            self.value()
            return
        if self._takes("}"):
            return
        while True:
            key = self.value()
            if not isinstance(key, str) or not self._takes(":"):
                raise ValueError("a key was expected")
            if key == name:
                yield
            else:
                self.value()
            if not self._takes(","):
                break
        if not self._takes("}"):
            raise ValueError("the end of an object was expected")

    def items(self) -> Iterator[None]:
        """Yield the items of the array that begins here, each as the next value; anything else is its only item."""
        if not self._takes("["):
            yield
            return
        if self._takes("]"):
            return
        while True:
            yield
            if not self._takes(","):
                break
        if not self._takes("]"):
            raise ValueError("the end of an array was expected")

    def end(self) -> None:
        """Raise ValueError if anything follows."""
        if self._next() != len(self._text):
            raise ValueError("the end was expected")

    def _next(self) -> int:
        self._at = _skip(self._text, self._at).end()
        return self._at

    def _takes(self, mark: str) -> bool:
        if not self._text.startswith(mark, self._next()):
            return False
        self._at += 1
        return True


def _instance(fields: Mapping[str, Any]) -> Instance | None:
    """Return the instance as callers need it; None without a host, an application or a valid port."""
    host, app = _string(fields.get("hostName")), _string(fields.get("app"))
    port, enabled = _port(fields.get("port"), 0, enabled=True)
    secure_port, secure_enabled = _port(fields.get("securePort"), 443, enabled=False)
    secure = secure_enabled and not enabled
    chosen = secure_port if secure else port if enabled else 0
    if not host or not app or not 0 <= chosen <= _MAX_PORT:
        return None
    status = fields.get("status", UP)
    metadata = fields.get("metadata")
    entries = metadata.items() if isinstance(metadata, dict) else ()
    return Instance(
        app.lower(),
        _string(fields.get("instanceId")) or host,
        host,
        chosen,
        status if isinstance(status, str) and status in STATUSES else UNKNOWN,
        {key: _plain(value) for key, value in entries if key != "@class" and value is not None},
        secure,
        _number(fields.get("lastDirtyTimestamp"), 0),
    )


def _string(value: object) -> str:
    return value.strip() if isinstance(value, str) else ""


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: object, default: int) -> int:
    if isinstance(value, str) and value.isascii() and value.lstrip("-").isdecimal() and len(value) < 20:
        return int(value)
    return int(value) if isinstance(value, int | float) and abs(value) < 1e18 else default


def _port(value: object, default: int, *, enabled: bool) -> tuple[int, bool]:
    if not isinstance(value, dict):
        return _number(value, default), enabled
    said = value.get("@enabled")
    is_true = said is True or (isinstance(said, str) and said.lower() == "true")
    return _number(value.get("$"), default), enabled if said is None else is_true
