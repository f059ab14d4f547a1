"""The rules of HTTP/1.1 messages, in one place: what isn't unmistakable is refused, never repaired.

llhttp (by httptools, every leniency off) refuses by itself: bare CR or LF, NUL and other control characters, folded
headers, a space before the colon, repeated or signed Content-Length, Content-Length beside Transfer-Encoding, wrong
chunk sizes. The reader below adds what llhttp lets pass: versions other than 1.0 and 1.1, missing, repeated or wrong
Host, repeated fields that must be single, codings other than `chunked`, chunked in HTTP/1.0, absolute targets that
contradict Host, and every limit. The gateway, our small server and the tests share it.

An offer to upgrade is ignored, as RFC 9110 §7.8 allows. llhttp ends a request with one at its head, whatever body was
announced; the reader then reads that body with a parser that met the same framing without the offer.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import httptools

from backstay.http.errors import FramingError

HOP_BY_HOP = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    )
)
"""Fields that end at the next hop and are never forwarded."""

IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods whose repetition has the effect of one (RFC 9110 §9.2.2)."""

_SINGLE = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"authorization", b"content-type", b"idempotency-key")
)
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_VERSIONS = frozenset(("1.1", "1.0"))

_PRINTED = bytes((9, *range(0x20, 0x7F), *range(0x80, 0x100)))

LINGER_SECONDS = 2.0
"""In which a client that is still sending can read why it was refused, before its connection is closed."""
DISCARD_BYTES = 64 * 1024
"""Of an unwanted body that are read away, rather than closing the connection."""

Fields = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Limits:
    """The most of a request that is taken, in bytes and counts."""

    head: int = 32 * 1024
    """Request line and fields together; also what a chunked body may carry beside its data without progress."""
    fields: int = 100
    target: int = 8 * 1024
    body: int = 8 * 1024 * 1024


class RequestHead:
    """A request without its body. Names in `fields` are lower-case.

    `index` has the last value of each name, but all of Connection. `upgrade` is what a request without a body offers.
    """

    __slots__ = ("chunked", "fields", "host", "index", "keep_alive", "length", "method", "target", "upgrade", "version")

    def __init__(self, method: bytes, target: bytes, version: str, fields: Fields, index: dict[bytes, bytes]) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.fields = fields
        self.index = index
        self.host = b""
        self.length: int | None = None
        self.chunked = False
        self.keep_alive = False
        self.upgrade = b""

    def aimed_at(self, target: bytes) -> "RequestHead":
        """Return the same request for another target."""
        aimed = RequestHead(self.method, target, self.version, self.fields, self.index)
        for name in ("host", "length", "chunked", "keep_alive", "upgrade"):
            setattr(aimed, name, getattr(self, name))
        return aimed

    @property
    def expects_continue(self) -> bool:
        """The client waits for `100 Continue` before it sends the body."""
        return self.index.get(b"expect", b"").strip().lower() == b"100-continue" and self.version != "1.0"

    @property
    def has_body(self) -> bool:
        """Body bytes follow the head."""
        return self.chunked or bool(self.length)


class RequestReader(ABC):
    """Reads requests from bytes, and hands them to the three hooks that a subclass defines.

    `feed` raises FramingError; afterwards the connection's input means nothing any more and must not be fed again.
    Several requests in one piece of input call the hooks one after the other: pipelining is the subclass's concern.
    """

    __slots__ = (
        "_body_limit",
        "_body_seen",
        "_fields",
        "_head_done",
        "_parser",
        "_pipelined",
        "_raw",
        "_target",
        "_upgrade_ignored",
        "limits",
    )

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._fields: Fields = []
        self._target = b""
        self._head_done = True
        self._raw = 0
        self._pipelined = False
        self._body_seen = 0
        self._body_limit = limits.body
        self._upgrade_ignored = b""  # a head with the framing of the body that llhttp is about to skip

    # -- hooks
    @abstractmethod
    def head_received(self, head: RequestHead) -> None:
        """A head is complete and within the rules."""

    @abstractmethod
    def body_received(self, data: bytes) -> None:
        """A piece of the body, without chunk framing."""

    @abstractmethod
    def message_received(self) -> None:
        """The request is complete."""

    # -- for the subclass
    @property
    def between_messages(self) -> bool:
        """Nothing of another request has arrived yet."""
        return self._head_done and self._raw == 0

    def limit_body(self, head: RequestHead, limit: int) -> None:
        """Refuse a body of more than `limit` bytes, now if its length is known, else as soon as it is passed."""
        self._body_limit = limit
        if head.length is not None and head.length > limit:
            raise FramingError(413, f"the body has {head.length} bytes; at most {limit} are taken")

    def discard_body(self, head: RequestHead, limit: int) -> bool:
        """Take at most `limit` more bytes of the unwanted body; False if it is known to be longer."""
        self._body_limit = self._body_seen + limit
        return head.length is None or head.length <= self._body_limit

    def let_go_of_parser(self) -> None:
        """The input is over. The parser refers back to the reader: with it, both wait for the garbage collector."""
        del self._parser

    def feed(self, data: bytes) -> None:
        """Read the next bytes of the connection."""
        rest: bytes | memoryview | None = data
        while rest:
            rest = self._feed(rest)

    def _feed(self, data: bytes | memoryview) -> memoryview | None:
        """Read up to the end, or to where llhttp stops for an upgrade; returns what is left."""
        self._raw += len(data)
        seen = self._body_seen
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._upgrade_ignored:
                self._read_body_nevertheless()
            return memoryview(data)[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None
        except httptools.HttpParserInvalidMethodError:
            raise FramingError(501, "the method isn't one of HTTP/1.1") from None
        except httptools.HttpParserError as error:
            raise FramingError(400, f"the request isn't valid HTTP/1.1: {error}") from None
        if self._raw > self.limits.head:
            self._check_progress(seen)
        return None

    def _read_body_nevertheless(self) -> None:
        """Go on with a parser that expects the body which the one before has skipped."""
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(self._upgrade_ignored)  # `_head_done` keeps its callbacks from doing anything
        self._upgrade_ignored = b""
        self._raw = 1  # the body is still to come

    def _check_progress(self, seen: int) -> None:
        if not self._head_done:
            raise FramingError(431, f"the head has more than {self.limits.head} bytes")
        if self._body_seen != seen:
            self._raw = 1
        elif self._raw > 1:
            raise FramingError(400, f"more than {self.limits.head} bytes of chunk framing without data")

    # -- callbacks of the parser
    def on_message_begin(self) -> None:
        if self._upgrade_ignored:
            return
        self._fields = []
        self._target = b""
        self._head_done = False
        self._pipelined = self._raw == 0  # it begins in the middle of a piece, so `_raw` counts too little
        self._body_seen = 0

    def on_url(self, part: bytes) -> None:
        if self._head_done:
            return
        self._target += part
        if len(self._target) > self.limits.target:
            raise FramingError(414, f"the request target has more than {self.limits.target} bytes")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._head_done:  # after the head these are trailers, which nobody here needs
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._head_done:
            return
        parser = self._parser
        fields = self._fields
        index = dict(fields)
        head = RequestHead(parser.get_method(), self._target, parser.get_http_version(), fields, index)
        if self._raw > self.limits.head or len(fields) > self.limits.fields or self._pipelined:
            self._check_size(fields)
        if len(index) != len(fields):
            _check_repeated(fields, index)
        check_head(head)
        head.keep_alive = parser.should_keep_alive()
        if parser.should_upgrade():
            self._upgrade_offered(head)
        self._head_done = True
        self._body_limit = self.limits.body
        self.head_received(head)

    def _upgrade_offered(self, head: RequestHead) -> None:
        if head.method == b"CONNECT":  # llhttp skips its body too
            raise FramingError(400, "a tunnel is never made")
        if head.has_body:
            self._upgrade_ignored = _framing_head(head)
        else:
            head.upgrade = head.index.get(b"upgrade", b"").strip().lower()

    def on_body(self, data: bytes) -> None:
        self._body_seen += len(data)
        if self._body_seen > self._body_limit:
            raise FramingError(413, f"the body has more than {self._body_limit} bytes")
        self.body_received(data)

    def on_message_complete(self) -> None:
        if self._upgrade_ignored:
            return
        self._raw = 0
        self.message_received()

    def _check_size(self, fields: Fields) -> None:
        if len(fields) > self.limits.fields:
            raise FramingError(431, f"{len(fields)} header fields; at most {self.limits.fields} are taken")
        if sum(len(name) + len(value) + 4 for name, value in fields) + len(self._target) > self.limits.head:
            raise FramingError(431, f"the head has more than {self.limits.head} bytes")


def check_head(head: RequestHead) -> None:
    """Fill in host, length, coding and target of a head, or raise FramingError."""
    index = head.index
    if head.version not in _VERSIONS:
        raise FramingError(505, f"HTTP/{head.version} isn't spoken here; HTTP/1.1 is")
    length = index.get(b"content-length")
    if length is not None:
        head.length = int(length)
    coding = index.get(b"transfer-encoding")
    if coding is not None:
        _check_coding(head, coding)
    host = index.get(b"host")
    if host is not None and valid_host(host):
        head.host = host.strip()
    elif host is not None or head.version == "1.1":
        raise FramingError(400, "the Host header is missing or isn't a host name")
    if head.target[:1] != b"/":
        _check_target(head)
    elif b"#" in head.target:
        raise FramingError(400, "a request target has no fragment")


def _check_coding(head: RequestHead, coding: bytes) -> None:
    if head.version == "1.0" or head.length is not None:
        raise FramingError(400, "Transfer-Encoding isn't allowed here")
    if coding.strip().lower() != b"chunked":
        raise FramingError(501, "the only Transfer-Encoding understood is chunked")
    head.chunked = True


def _check_target(head: RequestHead) -> None:
    """Absolute form must name the Host; `*` is for OPTIONS; a tunnel is never made."""
    scheme, slashes, rest = head.target.partition(b"://")
    if slashes and scheme.lower() in (b"http", b"https"):
        authority, slash, path = rest.partition(b"/")
        if not slash:
            authority, mark, query = rest.partition(b"?")
            path = mark + query
        if authority.lower() != head.host.lower() or b"#" in path:
            raise FramingError(400, "the request target contradicts the Host header")
        head.target = b"/" + path
    elif head.target != b"*" or head.method != b"OPTIONS":
        raise FramingError(400, "the request target must be a path")


def _framing_head(head: RequestHead) -> bytes:
    """Return a head whose body is framed like this one's, and that leaves the connection open or not like this one."""
    framing = b"transfer-encoding: chunked" if head.chunked else b"content-length: %d" % (head.length or 0)
    return b"POST / HTTP/1.1\r\n%b%b\r\n\r\n" % (b"" if head.keep_alive else b"connection: close\r\n", framing)


def _check_repeated(fields: Fields, index: dict[bytes, bytes]) -> None:
    """Refuse what must be single; Connection is a list, whose parts mean the same as the whole (RFC 9110 §5.3)."""
    seen = set()
    for name, _ in fields:
        if name in _SINGLE:
            if name in seen:
                raise FramingError(400, f"the header {name.decode('latin-1')} is there twice")
            seen.add(name)
    if b"connection" in index:
        index[b"connection"] = b",".join(value for name, value in fields if name == b"connection")


@lru_cache(maxsize=1024)
def valid_host(host: bytes) -> bool:
    """Return whether a Host value is a name or address with an optional port."""
    return _HOST.fullmatch(host.strip()) is not None


def connection_names(index: Mapping[bytes, bytes]) -> frozenset[bytes]:
    """Return the fields that this message's Connection header declares to end here."""
    value = index.get(b"connection")
    if value is None:
        return frozenset()
    return frozenset(name.strip().lower() for name in value.split(b","))


def field_line(name: str, value: str) -> bytes:
    """One header line for the wire; ValueError for a name or value that would break the framing."""
    if _TOKEN.fullmatch(name) is None:
        raise ValueError(f"{name!r} isn't a header name")
    if _VALUE.fullmatch(value) is None:
        raise ValueError(f"the value of header {name} holds a character that isn't allowed: {value!r}")
    return f"{name}: {value}\r\n".encode("latin-1")


@lru_cache(maxsize=1024)
def field_name(name: bytes) -> bytes:
    """Return the beginning of a header line, in lower case; ValueError for what isn't a name."""
    if _TOKEN.fullmatch(name.decode("latin-1")) is None:
        raise ValueError(f"{name!r} isn't a header name")
    return name.lower() + b": "


def check_lines(lines: bytes, count: int) -> None:
    """Raise ValueError unless these are so many header lines, each of printed characters only."""
    if lines.translate(None, _PRINTED) != b"\r\n" * count:
        raise ValueError("the value of a header holds a character that isn't allowed")
