"""What is refused on the wire, and that how bytes are cut into pieces changes nothing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.http.errors import FramingError
from backstay.http.framing import Limits, RequestHead, RequestReader, connection_names, field_line

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


class Recorder(RequestReader):
    """Keeps what it reads."""

    def __init__(self, limits: Limits | None = None) -> None:
        super().__init__(limits or Limits())
        self.heads: list[RequestHead] = []
        self.bodies: list[bytes] = []
        self.complete = 0

    def head_received(self, head: RequestHead) -> None:
        self.heads.append(head)
        self.bodies.append(b"")

    def body_received(self, data: bytes) -> None:
        self.bodies[-1] += data

    def message_received(self) -> None:
        self.complete += 1


def read(data: bytes, limits: Limits | None = None) -> Recorder:
    recorder = Recorder(limits)
    recorder.feed(data)
    return recorder


REFUSED = {
    "transfer-encoding and content-length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
    "content-length and transfer-encoding": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "two equal content-lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "two content-lengths in one": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "signed content-length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "negative content-length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "hexadecimal content-length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "idempotency-key twice": (POST + b"Idempotency-Key: a\r\nidempotency-key: a\r\n\r\n", 400),
    "content-type twice": (POST + b"Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n", 400),
    "authorization twice": (GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
    "transfer-encoding twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    "transfer-encoding identity, then chunked": (
        POST + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "unknown transfer-encoding": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "coding before chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked isn't last": (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
    "vertical tab before chunked": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "folded header": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "space before the colon": (GET + b"X : a\r\n\r\n", 400),
    "space before content-length's colon": (POST + b"Content-Length : 3\r\n\r\nabc", 400),
    "nameless header": (GET + b": a\r\n\r\n", 400),
    "header without a colon": (GET + b"abc\r\n\r\n", 400),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "bare line feed in the head": (GET + b"X: a\nY: b\r\n\r\n", 400),
    "bare carriage return": (GET + b"X: a\rY: b\r\n\r\n", 400),
    "NUL in a value": (GET + b"X: a\x00b\r\n\r\n", 400),
    "control character in a value": (GET + b"X: a\x01b\r\n\r\n", 400),
    "control character in the target": (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "non-ASCII byte in the target": (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "no host": (b"GET / HTTP/1.1\r\nX: a\r\n\r\n", 400),
    "two hosts": (GET + b"Host: a\r\n\r\n", 400),
    "empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    "host with a user": (b"GET / HTTP/1.1\r\nHost: me@a\r\n\r\n", 400),
    "two authorizations": (GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n", 400),
    "absolute target of another host": (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "fragment": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "asterisk for GET": (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "tunnel": (b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400),
    "tunnel to a path": (b"CONNECT / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 400),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
    "lower-case method": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "chunk size with 0x": (POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk size with a bare line feed": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
    "chunk longer than said": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    "chunk size that overflows": (POST + b"Transfer-Encoding: chunked\r\n\r\n1ffffffffffffffff\r\nabc\r\n", 400),
    "request after connection: close": (GET + b"Connection: close\r\n\r\n" + GET + b"\r\n", 400),
}


@pytest.mark.parametrize(("data", "status"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses_what_two_readers_could_understand_differently(data: bytes, status: int) -> None:
    """A request that another server could delimit otherwise is refused, in one piece and byte by byte."""
    with pytest.raises(FramingError) as whole:
        read(data)
    with pytest.raises(FramingError) as pieces:
        recorder = Recorder()
        for i in range(len(data)):
            recorder.feed(data[i : i + 1])

    assert status == whole.value.status
    assert status == pieces.value.status


ACCEPTED = {
    "plain": (GET + b"\r\n", b"/", b""),
    "padded content-length": (POST + b"Content-Length: 3 \r\n\r\nabc", b"/", b"abc"),
    "chunks with extension and trailer": (
        POST + b"Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n1\r\nd\r\n0\r\nHost: evil\r\n\r\n",
        b"/",
        b"abcd",
    ),
    "absolute target": (b"GET http://A/b?c HTTP/1.1\r\nHost: a\r\n\r\n", b"/b?c", b""),
    "absolute target without a path": (b"GET http://a?c HTTP/1.1\r\nHost: a\r\n\r\n", b"/?c", b""),
    "asterisk for OPTIONS": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", b"*", b""),
    "HTTP/1.0 without host": (b"GET / HTTP/1.0\r\n\r\n", b"/", b""),
    "host in brackets": (b"GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b"/", b""),
    "leading empty lines": (b"\r\n\r\n" + GET + b"\r\n", b"/", b""),
    "bytes above ASCII in a value": (GET + b"X: \xe4\r\n\r\n", b"/", b""),
}


@pytest.mark.parametrize(("data", "target", "body"), ACCEPTED.values(), ids=ACCEPTED.keys())
def test_reads_what_is_clear(data: bytes, target: bytes, body: bytes) -> None:
    """Unusual requests with one meaning are read, in one piece and byte by byte."""
    whole = read(data)
    pieces = Recorder()
    for i in range(len(data)):
        pieces.feed(data[i : i + 1])

    for recorder in (whole, pieces):
        assert [target] == [head.target for head in recorder.heads]
        assert [body] == recorder.bodies
        assert recorder.complete == 1


LIMITS = Limits(head=200, fields=5, target=50, body=10)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /" + b"a" * 60 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (GET + b"X: a\r\n" * 5 + b"\r\n", 431),
        (GET + b"X: " + b"a" * 200 + b"\r\n\r\n", 431),
        (GET + b"X: " + b"a" * 200, 431),
        (GET + b"\r\n" + GET + b"X: " + b"a" * 195 + b"\r\n\r\n", 431),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"a" * 11 + b"\r\n0\r\n\r\n", 413),
    ],
    ids=["target", "fields", "head", "unfinished head", "pipelined head", "chunked body"],
)
def test_every_part_has_a_limit(data: bytes, status: int) -> None:
    """Each limit has a status of its own and holds without waiting for the end."""
    with pytest.raises(FramingError) as refused:
        read(data, LIMITS)

    assert status == refused.value.status


def test_a_known_length_is_refused_before_the_body() -> None:
    """A Content-Length above the limit is refused when the head is there."""
    recorder = read(POST + b"Content-Length: 11\r\n\r\n", LIMITS)

    with pytest.raises(FramingError) as refused:
        recorder.limit_body(recorder.heads[0], 10)

    assert refused.value.status == 413


@pytest.mark.parametrize("offer", [b"", b"Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "with upgrade"])
def test_endless_chunk_framing_is_refused(offer: bytes) -> None:
    """Chunk extensions or trailers without data can't go on for ever."""
    recorder = read(POST + offer + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", LIMITS)

    with pytest.raises(FramingError):
        for _ in range(100):
            recorder.feed(b"X: aaaaaaaaaa\r\n")


def test_a_body_longer_than_the_head_limit_is_read() -> None:
    """The head's limit doesn't apply to a body that makes progress."""
    recorder = Recorder(Limits(head=200, body=10_000))
    recorder.feed(POST + b"Content-Length: 5000\r\n\r\n")
    for _ in range(50):
        recorder.feed(b"a" * 100)

    assert recorder.complete == 1


def test_an_ignored_upgrade_is_an_ordinary_request() -> None:
    """After a request with Upgrade the next request on the connection is still read."""
    upgrade = GET + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"

    recorder = read(upgrade + POST + b"Content-Length: 1\r\n\r\na")

    assert [head.upgrade for head in recorder.heads] == [b"h2c", b""]
    assert recorder.bodies == [b"", b"a"]
    assert recorder.complete == 2


OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"  # as a body; a reader that skips bodies takes it for a request
SIZE = len(SMUGGLED)
OFFERS_WITH_BODY = {
    "length": POST + OFFER + b"Content-Length: %d\r\n\r\n" % SIZE + SMUGGLED,
    "length before": POST + b"Content-Length: %d\r\n" % SIZE + OFFER + b"\r\n" + SMUGGLED,
    "chunks": POST + OFFER + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % SIZE + SMUGGLED + b"\r\n0\r\n\r\n",
    "chunks, extension and trailers": (
        POST + OFFER + b"Transfer-Encoding: Chunked\r\n\r\n3;a=b\r\n" + SMUGGLED[:3] + b"\r\n%x\r\n" % (SIZE - 3)
    )
    + SMUGGLED[3:]
    + b"\r\n0\r\nHost: evil\r\n"
    + OFFER
    + b"\r\n",
    "websocket": POST + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: %d\r\n\r\n" % SIZE + SMUGGLED,
    "HTTP/1.0": b"POST / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: h2c\r\n"
    + b"Content-Length: %d\r\n\r\n" % SIZE
    + SMUGGLED,
}


@pytest.mark.parametrize("offer", OFFERS_WITH_BODY.values(), ids=OFFERS_WITH_BODY.keys())
def test_a_request_with_a_body_is_never_an_upgrade(offer: bytes) -> None:
    """Wherever the input is split, the body is the request's own and what follows is read: RFC 9110 §7.8."""
    data = offer + offer + GET + OFFER + b"\r\n" + offer
    for cut in range(len(data)):
        recorder = Recorder()
        for piece in filter(None, (data[:cut], data[cut:])):
            recorder.feed(piece)

        assert recorder.bodies == [SMUGGLED, SMUGGLED, b"", SMUGGLED]
        assert [head.upgrade for head in recorder.heads] == [b"", b"", b"h2c", b""]
        assert [head.target for head in recorder.heads] == [b"/"] * 4
        assert all(head.keep_alive for head in recorder.heads)
        assert recorder.complete == 4
        assert recorder.between_messages


@pytest.mark.parametrize("offer", OFFERS_WITH_BODY.values(), ids=OFFERS_WITH_BODY.keys())
def test_a_body_beside_an_upgrade_is_read_byte_by_byte(offer: bytes) -> None:
    """The request is complete with the last byte of its body, not before."""
    recorder = Recorder()
    for i in range(len(offer) - 1):
        recorder.feed(offer[i : i + 1])
        assert recorder.complete == 0
        assert not recorder.between_messages
    recorder.feed(offer[-1:])

    assert (recorder.complete, recorder.bodies) == (1, [SMUGGLED])
    assert recorder.between_messages


BESIDE_AN_UPGRADE = {
    "chunk size with 0x": (b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
    "chunk longer than said": (b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    "chunks above the limit": (b"Transfer-Encoding: chunked\r\n\r\nb\r\n" + b"a" * 11 + b"\r\n0\r\n\r\n", 413),
    "length above the limit": (b"Content-Length: 11\r\n\r\n" + b"a" * 11, 413),
    "request after connection: close": (b"Connection: close\r\nContent-Length: 1\r\n\r\na" + GET + b"\r\n", 400),
}


@pytest.mark.parametrize(("rest", "status"), BESIDE_AN_UPGRADE.values(), ids=BESIDE_AN_UPGRADE.keys())
def test_a_body_beside_an_upgrade_has_the_same_rules(rest: bytes, status: int) -> None:
    """Limits and framing hold as for any other body, in one piece and byte by byte."""
    data = POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + rest
    limits = Limits(head=200, body=10)
    with pytest.raises(FramingError) as whole:
        read(data, limits)
    recorder = Recorder(limits)
    with pytest.raises(FramingError) as pieces:
        for i in range(len(data)):
            recorder.feed(data[i : i + 1])

    assert (whole.value.status, pieces.value.status) == (status, status)


def test_a_long_body_beside_an_upgrade_is_read() -> None:
    """The head's limit doesn't apply to it, in one piece with the head or after it."""
    head = POST + OFFER + b"Content-Length: 5000\r\n\r\n"
    limits = Limits(head=300, body=10_000)
    whole = read(head + b"a" * 5000, limits)
    pieces = Recorder(limits)
    for piece in (head, *[b"a" * 500] * 10):
        pieces.feed(piece)

    for recorder in (whole, pieces):
        assert (recorder.complete, recorder.bodies) == (1, [b"a" * 5000])


def test_many_upgrades_in_one_piece_are_many_requests() -> None:
    """However many requests with Upgrade come at once, each is read."""
    offers = GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + POST + OFFER + b"Content-Length: 1\r\n\r\na"

    recorder = read(offers * 2000)

    assert recorder.complete == 4000
    assert recorder.bodies == [b"", b"a"] * 2000


def test_names_in_every_connection_field_count() -> None:
    """Several Connection lines are one list."""
    recorder = read(GET + b"Connection: Upgrade, X-Mine\r\nUpgrade: h2c\r\nConnection: keep-alive\r\n\r\n")

    assert connection_names(recorder.heads[0].index) == {b"upgrade", b"x-mine", b"keep-alive"}


@pytest.mark.parametrize(
    ("name", "value"), [("X", "a\r\nY: b"), ("X", "a\nb"), ("X", "a\x00"), ("X\r\n", "a"), ("", "a")]
)
def test_a_header_line_can_hold_no_second_one(name: str, value: str) -> None:
    """What we write ourselves can't be split into two headers."""
    with pytest.raises(ValueError, match=r"header"):
        field_line(name, value)


fields = st.lists(
    st.tuples(
        st.from_regex(rb"x-[a-z]{1,8}", fullmatch=True),
        st.from_regex(rb"[!-~]([ -~]{0,20}[!-~])?", fullmatch=True),
    ),
    max_size=8,
)
bodies = st.lists(st.binary(min_size=1, max_size=30), max_size=4)


def request(extra: list[tuple[bytes, bytes]], body: list[bytes], chunked: bool) -> bytes:
    head = b"POST /p HTTP/1.1\r\nhost: a\r\n" + b"".join(b"%s: %s\r\n" % field for field in extra)
    if chunked:
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in body)
        return head + b"transfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    return head + b"content-length: %d\r\n\r\n" % sum(map(len, body)) + b"".join(body)


@given(
    st.lists(st.tuples(fields, bodies, st.booleans()), min_size=1, max_size=3),
    st.lists(st.integers(0, 400), max_size=6),
)
def test_pieces_change_nothing(
    requests: list[tuple[list[tuple[bytes, bytes]], list[bytes], bool]], cuts: list[int]
) -> None:
    """However a stream of requests is cut, the same requests with the same bodies come out."""
    data = b"".join(request(*parts) for parts in requests)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})

    recorder = Recorder()
    for start, end in pairwise(edges):
        recorder.feed(data[start:end])

    assert [b"".join(body) for _, body, _ in requests] == recorder.bodies
    assert [extra for extra, _, _ in requests] == [head.fields[1:-1] for head in recorder.heads]
    assert len(requests) == recorder.complete
    assert recorder.between_messages


@given(st.binary(max_size=300))
def test_noise_is_refused_or_read(noise: bytes) -> None:
    """Any bytes at all either are a request or raise FramingError."""
    recorder = Recorder()
    try:
        recorder.feed(GET + noise)
    except FramingError as error:
        status = error.status
    else:
        status = 200

    assert status in (200, 400, 414, 431, 501, 505)
