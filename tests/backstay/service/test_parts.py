"""Small parts of the kit: pages, problems, health, jobs, access lines, metrics, logs."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from backstay.asgi.answers import encode
from backstay.errors import ConfigError
from backstay.runtime.health import Readiness
from backstay.service import (
    Answer,
    Check,
    Conflict,
    FieldError,
    Problem,
    Request,
    ServiceSettings,
    TooManyRequests,
    Unprocessable,
    decode_cursor,
    encode_cursor,
    every,
)
from backstay.service.bodies import decode_body, field_error
from backstay.testing import FakeClock


def test_cursor_round_trip() -> None:
    """A cursor gives its position back, with its types."""
    at = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)

    assert decode_cursor(encode_cursor(at, "tea", Decimal("1.50")), datetime, str, Decimal) == (
        at,
        "tea",
        Decimal("1.50"),
    )
    assert decode_cursor(None, str) is None


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "é", "WyJ4Il0", "W10", "x" * 600, encode_cursor("a", 1)])
def test_cursor_of_somebody_else(cursor: str) -> None:
    """Any other text is refused, whatever it is."""
    with pytest.raises(Unprocessable) as refused:
        decode_cursor(cursor, int, str)
    assert refused.value.slug == "bad-cursor"


def test_problem_members() -> None:
    """A problem writes what it has, in order, and members of its own."""
    problem = Problem(402, "payment-declined", "Declined", "no funds", order_id="1")

    assert list(problem.body(instance="/o", trace_id="t").items()) == [
        ("type", "urn:backstay:problem:payment-declined"),
        ("title", "Declined"),
        ("status", 402),
        ("detail", "no funds"),
        ("instance", "/o"),
        ("traceId", "t"),
        ("order_id", "1"),
    ]


def test_problem_titles_and_headers() -> None:
    """A slug of its own gives a title of its own; Retry-After is whole seconds, at least one."""
    assert Conflict("out-of-stock").title == "Out of stock"
    assert Unprocessable("x").title == "Unprocessable Entity"
    assert TooManyRequests(retry_after=0.2).headers == {"Retry-After": "1"}
    assert TooManyRequests(retry_after=1.2, headers={"X-A": "b"}).headers == {"Retry-After": "2", "X-A": "b"}
    assert Unprocessable(errors=[FieldError("/a", "is wrong")]).detail == "/a: is wrong"


class Inner(msgspec.Struct, forbid_unknown_fields=True):
    n: int


class Outer(msgspec.Struct):
    lines: list[Inner] = []
    by_name: dict[str, Inner] = {}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"lines": [{"n": 1}, {"n": "x"}]}, "/lines/1/n"),
        ({"lines": [{}]}, "/lines/0/n"),
        ({"lines": [{"n": 1, "a/b": 2}]}, "/lines/0/a~1b"),
        ({"by_name": {"x": {"n": None}}}, "/by_name/n"),
        ([], ""),
    ],
)
def test_pointer_of_an_error(body: Any, pointer: str) -> None:
    """msgspec's path becomes a JSON pointer; a missing or unknown field is named itself."""
    with pytest.raises(msgspec.ValidationError) as wrong:
        msgspec.convert(body, Outer)
    assert field_error(wrong.value).pointer == pointer


def test_answers_as_bytes() -> None:
    """Bytes stay, None is nothing, money is a string."""
    assert (encode(b"x"), encode(None), Answer({"a": Decimal("1.50")}).content()) == (b"x", b"", b'{"a":"1.50"}')


async def test_readiness_says_what_is_missing() -> None:
    """Every check is asked and says in words what is missing, also when it breaks."""

    async def fine() -> None:
        return None

    async def lacking() -> str:
        return "the copy"

    async def broken() -> None:
        raise OSError("refused")

    health = await Readiness([Check("a", fine), Check("b", lacking), Check("c", broken)]).check()

    assert health.status == "DOWN"
    assert {name: result.missing for name, result in health.checks.items()} == {
        "a": None,
        "b": "the copy",
        "c": "OSError: refused",
    }


async def test_readiness_once() -> None:
    """What was true once stays true, if the check says so."""
    answers = iter(["not yet", None])

    async def check() -> str | None:
        return next(answers)

    readiness = Readiness([Check("copy", check, once=True)])

    assert [await readiness.passed() for _ in range(3)] == [False, True, True]


async def test_job_survives_its_errors() -> None:
    """A failed run is counted and told, and the job goes on."""
    outcomes = iter([ValueError("no"), None])

    async def work() -> None:
        if (error := next(outcomes)) is not None:
            raise error

    job = every(5, work, name="settle")
    await job.run_once()
    failed = job.statistics()
    await job.run_once()

    assert (failed.runs, failed.failures, failed.last_error) == (1, 1, "ValueError: no")
    assert (job.statistics().runs, job.statistics().failures, job.statistics().last_error) == (2, 1, None)


async def test_job_times_out() -> None:
    """A run that takes too long is ended."""
    import asyncio

    job = every(5, asyncio.Event().wait, name="stuck", timeout=0.01)
    await job.run_once()

    assert job.statistics().failures == 1


async def test_job_is_jittered() -> None:
    """A job runs about every so many seconds, not exactly."""
    import asyncio

    clock = FakeClock()
    runs: list[float] = []

    async def work() -> None:
        runs.append(clock.monotonic())

    task = asyncio.create_task(every(10, work, clock=clock).run())
    for _ in range(300):
        await asyncio.sleep(0)
        clock.advance(1)
    task.cancel()

    assert 300 / 12 - 2 <= len(runs) <= 300 / 8 + 2
    with pytest.raises(ValueError, match="more than 0"):
        every(0, work)


@pytest.mark.parametrize(
    ("forwarded", "proxies", "address"),
    [
        (None, None, "10.0.0.1"),
        ("", None, "10.0.0.1"),
        ("198.51.100.7", None, "198.51.100.7"),
        ("1.2.3.4, 198.51.100.7", None, "198.51.100.7"),
        ("1.2.3.4, 198.51.100.7, 10.9.0.2", r"10\..*", "198.51.100.7"),
        ("1.2.3.4, 198.51.100.7, 10.9.0.2, 10.9.0.3", r"10\..*", "198.51.100.7"),
        ("10.9.0.2", r"10\..*", "10.0.0.1"),
    ],
)
def test_who_asks(forwarded: str | None, proxies: str | None, address: str) -> None:
    """The nearest address that is none of our proxies; what a client wrote before it counts nothing."""
    headers = {} if forwarded is None else {b"x-forwarded-for": forwarded.encode()}
    request = Request({"client": ("10.0.0.1", 1)}, headers, re.compile(proxies) if proxies else None)

    assert request.address == address


class Priced(msgspec.Struct):
    price: Decimal = Decimal(0)

    def __post_init__(self) -> None:
        abs(self.price)


@pytest.mark.parametrize(
    "body",
    [
        b'{"price":' + b"9" * 5000 + b',"n":' + b"9" * 5000 + b"}",
        b'{"n":' + b"9" * 5000 + b"}",
        b'{"price":"1e999999999"}',
        b'{"price":"x","n":' + b"9" * 5000 + b"}",
    ],
)
def test_numbers_without_end(body: bytes) -> None:
    """A number that nothing can hold is a wrong field, wherever it stands and whatever trips over it."""
    with pytest.raises(Unprocessable):
        decode_body(msgspec.json.Decoder(Priced), body)


def test_who_asks_by_ipv6() -> None:
    """Limits count a /64, which one client has to itself; what is no address stays short."""
    keys = {Request({"client": (f"2001:db8::{n:x}", 1)}, {}).address_key for n in range(1, 50)}

    assert keys == {"2001:db8::"}
    assert Request({}, {b"x-forwarded-for": b"unix:" + b"x" * 1000}).address_key == "unix:" + "x" * 59


def test_trusted_proxies_must_be_an_expression() -> None:
    """A mistake is reported at the start."""
    with pytest.raises(ConfigError, match="TRUSTED_PROXIES: '\\[' is no regular expression"):
        ServiceSettings.read({"TRUSTED_PROXIES": "["})
