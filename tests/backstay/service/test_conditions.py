"""Conditional requests, as RFC 9110 §13 defines them."""

from collections.abc import AsyncIterator

import pytest

from backstay.auth import TokenVerifier
from backstay.service import (
    Answer,
    BadRequest,
    Conditions,
    PreconditionFailed,
    Service,
    ServiceSettings,
    get,
    post,
    put,
    version_tag,
)
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer


def conditions(**fields: str) -> Conditions:
    return Conditions.of([(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in fields.items()])


@pytest.mark.parametrize(
    ("match", "etag", "holds"),
    [
        ('"1"', '"1"', True),
        ('"2"', '"1"', False),
        ('"2", "1"', '"1"', True),
        (',, "2" ,\t"1",', '"1"', True),
        ('"a,b"', '"a,b"', True),
        ('"a", "b"', '"a,b"', False),
        ('W/"1"', '"1"', False),
        ('W/"1"', 'W/"1"', False),
        ('"1"', 'W/"1"', False),
        ("*", '"1"', True),
        ("*", 'W/"1"', True),
        ("*", None, False),
        ('"1"', None, False),
    ],
)
def test_if_match(match: str, etag: str | None, holds: bool) -> None:
    """Strong comparison: a weak tag matches nothing; `*` matches what is there."""
    if holds:
        conditions(if_match=match).check(etag)
    else:
        with pytest.raises(PreconditionFailed):
            conditions(if_match=match).check(etag)


@pytest.mark.parametrize(
    ("none_match", "etag", "matches"),
    [
        ('"1"', '"1"', True),
        ('W/"1"', '"1"', True),
        ('"1"', 'W/"1"', True),
        ('"2"', '"1"', False),
        ('"2", W/"1"', '"1"', True),
        ("*", '"1"', True),
        ("*", None, False),
        ('"1"', None, False),
    ],
)
def test_if_none_match(none_match: str, etag: str | None, matches: bool) -> None:
    """Weak comparison; what matches is 304 to a read and 412 to a change."""
    given = conditions(if_none_match=none_match)
    if etag is not None:
        assert given.is_not_modified(etag) is matches
    if matches:
        with pytest.raises(PreconditionFailed):
            given.check(etag)
    else:
        given.check(etag)


@pytest.mark.parametrize("text", ["1", '"1', '"1" "2"', "*, *", 'w/"1"', '"a b"', "", '"1", *', '"\x7f"'])
def test_what_is_no_list_of_tags(text: str) -> None:
    """It is refused, for nobody knows what was meant."""
    with pytest.raises(BadRequest, match="If-Match"):
        conditions(if_match=text)


def test_a_field_sent_in_several_lines() -> None:
    """Lines of one field are one list (RFC 9110 §5.3)."""
    given = Conditions.of([(b"if-match", b'"1"'), (b"host", b"x"), (b"if-match", b'"2"')])

    given.check('"1"')
    given.check('"2"')


def test_a_long_list_is_read_once() -> None:
    """A text that is almost a list costs no more than one."""
    with pytest.raises(BadRequest):
        conditions(if_none_match='"1" , ' * 10_000 + "x")


@get("/thing", public=True)
async def read() -> Answer[int]:
    """A thing with a tag."""
    return Answer(1, headers={"ETag": version_tag(3), "Cache-Control": "no-cache", "Location": "/x"})


@get("/untagged", public=True)
async def untagged() -> int:
    """A thing without one."""
    return 1


@put("/thing", public=True)
async def write(conditions: Conditions) -> None:
    """Change the thing."""
    conditions.check(version_tag(3))


@post("/things", public=True, status=201)
async def add() -> int:
    """Make something; this has no tag."""
    return 1


@pytest.fixture
async def things(issuer: TokenIssuer, verifier: TokenVerifier) -> AsyncIterator[Api]:
    service = Service("t", routes=[read, untagged, write, add], settings=ServiceSettings(), verifier=verifier)
    async with service.running() as running, Api(running.port, token=issuer.token()) as api:
        yield api


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/thing", {"if-none-match": '"3"'}, 304),
        ("HEAD", "/thing", {"if-none-match": '"3"'}, 304),
        ("GET", "/thing", {"if-none-match": "*"}, 304),
        ("GET", "/thing", {"if-none-match": '"2"'}, 200),
        ("GET", "/thing", {"if-match": '"2"'}, 412),
        ("GET", "/thing", {"if-match": '"3"', "if-none-match": '"3"'}, 304),
        ("GET", "/thing", {"if-match": '"2"', "if-none-match": '"3"'}, 412),
        ("GET", "/thing", {"if-none-match": "3"}, 400),
        ("GET", "/untagged", {"if-none-match": '"3"'}, 200),
        ("PUT", "/thing", {}, 204),
        ("PUT", "/thing", {"if-match": '"3"'}, 204),
        ("PUT", "/thing", {"if-match": '"2"'}, 412),
        ("PUT", "/thing", {"if-none-match": "*"}, 412),
        ("POST", "/things", {"if-match": '"1"'}, 412),
        ("POST", "/things", {"if-match": "*"}, 201),
        ("POST", "/things", {"if-none-match": '"1"'}, 201),
        ("POST", "/things", {"if-match": "1"}, 400),
    ],
)
async def test_over_http(things: Api, method: str, path: str, headers: dict[str, str], status: int) -> None:
    """No condition is passed over: what doesn't hold isn't done."""
    reply = await things.ask(method, path, headers=headers)

    assert status == reply.status
    if status == 304:
        assert (reply.body, reply.headers["etag"], reply.headers["cache-control"]) == (b"", '"3"', "no-cache")
        assert "location" not in reply.headers
        assert "content-type" not in reply.headers
    if status == 412:
        assert reply.slug == "precondition-failed"
