"""What hops tell each other about retries: which attempt this is, and when to stop."""

from typing import Any

import pytest

import backstay.resilience as r
from backstay.asgi.errors import problem_of
from backstay.http.messages import Headers, HttpResponse
from backstay.service import UpstreamError, client, get
from backstay.service.dispatch import Dispatcher
from backstay.service.endpoint import Endpoint, Limits
from backstay.service.router import Router


class Wire:
    """Answers requests as told and keeps their headers."""

    def __init__(self, *answers: tuple[int, list[tuple[str, str]]]) -> None:
        self.answers = list(answers)
        self.sent: list[dict[str, str]] = []

    async def request(self, *_: object, headers: list[tuple[str, str]], **__: object) -> HttpResponse:
        self.sent.append(dict(headers))
        status, more = self.answers.pop(0)
        return HttpResponse(status, Headers(more), b"{}")


def calling(wire: Wire) -> Any:
    to = client("http://127.0.0.1:1", r.Retry(3, wait=0, on=(UpstreamError,)))
    to.bind(wire, None, None)  # type: ignore[arg-type]
    return to


async def test_a_repetition_says_so() -> None:
    """From the second attempt on, the request carries its number."""
    wire = Wire((500, []), (502, []), (200, []))
    await calling(wire).get("/x", dict)

    assert [sent.get("x-retry-attempt") for sent in wire.sent] == [None, "2", "3"]


async def test_a_server_that_sheds_load_is_not_asked_again() -> None:
    """`x-do-not-retry` on an answer ends the attempts."""
    wire = Wire((503, [("x-do-not-retry", "1")]), (200, []))
    with pytest.raises(UpstreamError):
        await calling(wire).get("/x", dict)

    assert len(wire.sent) == 1


async def test_a_repetition_is_known_to_all_hops() -> None:
    """What serves a repetition says so to those that it asks: else the third hop would multiply the first one's."""
    wire = Wire((200, []), (200, []))
    with r.repeated_request(3):
        await calling(wire).get("/x", dict)
    await calling(wire).get("/x", dict)

    assert [sent.get("x-retry-attempt") for sent in wire.sent] == ["3", None]
    assert [r.attempt_of(given) for given in (None, b"1", b" 2 ", b"x", b"99999999")] == [1, 1, 2, 2, 2]


def test_the_hint_of_who_sheds_load_behind_us_is_ours() -> None:
    """A service that failed because another one sheds load says so, too."""
    error = UpstreamError("http://127.0.0.1:1", 503, {})
    without, error.do_not_retry = problem_of(error), True

    assert "x-do-not-retry" not in without.headers
    assert problem_of(error).headers["x-do-not-retry"] == "1"


async def test_what_serves_a_repetition_repeats_nothing() -> None:
    """A service that is asked a second time asks its own dependencies once; others it asks as often as it may."""
    made = 0

    @r.Retry(3, wait=0)
    async def dependency() -> None:
        nonlocal made
        made += 1
        raise ConnectionError

    @get("/", public=True)
    async def serve() -> None:
        await dependency()

    dispatcher = Dispatcher(Router([Endpoint(serve, limits=Limits(), verifier=None)]), limits=Limits())

    async def ask(**headers: str) -> tuple[int, dict[bytes, bytes]]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "http", "method": "GET", "path": "/", "raw_path": b"/", "query_string": b"", "headers": raw}
        await dispatcher(scope, receive, send)
        return sent[0]["status"], dict(sent[0]["headers"])

    assert (await ask(x_retry_attempt="2"))[0] == 503
    assert made == 1

    assert (await ask())[0] == 503
    assert made == 4

    assert (await ask(x_request_deadline_ms="0"))[0] == 504
    assert (made, dispatcher.late) == (4, 1)

    dispatcher.active = dispatcher._limits.active
    status, headers = await ask()

    assert (status, headers[b"x-do-not-retry"], dispatcher.shed) == (503, b"1", 1)


@pytest.mark.parametrize("error", [ConnectionError("lost"), r.BulkheadFull("x"), r.DeadlineTimeout("late")])
def test_what_fails_after_the_deadline_is_the_deadlines(error: Exception) -> None:
    """A failure that comes when the request's time is over is a 504: it says nothing about what was needed."""
    with r.deadline(-1):
        late = problem_of(error)
    with r.deadline(60):
        in_time = problem_of(error)

    assert (late.status, late.slug) == (504, "deadline-exceeded")
    assert in_time.status == (504 if isinstance(error, TimeoutError) else 503)
