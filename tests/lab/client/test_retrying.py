"""When a request is sent again, and when it isn't."""

from collections.abc import Sequence
from typing import Any

import pytest

from backstay.dev.web import Reply
from backstay.http import ConnectionLost
from lab.client.retrying import GaveUp, Retries, patiently, reason_to_repeat


def reply(status: int, slug: str = "", **headers: str) -> Reply:
    body: Any = {"type": f"urn:backstay:problem:{slug}"} if slug else {}
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()}, 1.0)


class Server:
    """Answers in turn; an exception is no answer at all."""

    def __init__(self, answers: Sequence[Reply | Exception]) -> None:
        self.answers = list(answers)

    async def __call__(self) -> Reply:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    ("answer", "repeated"),
    [
        (reply(200), False),
        (reply(401), False),
        (reply(402), False),
        (reply(409, "out-of-stock"), False),
        (reply(409, "request-in-progress"), True),
        (reply(422), False),
        (reply(429), True),
        (reply(500), True),
        (reply(503), True),
    ],
)
def test_what_is_an_answer(answer: Reply, repeated: bool) -> None:
    """Only what says nothing about the order is asked again."""
    assert (reason_to_repeat(answer) is not None) is repeated


async def test_it_is_sent_until_there_is_an_answer() -> None:
    """Resets, 5xx, 429 and a request in progress are waited out, and counted."""
    server = Server([ConnectionLost("reset"), reply(503), reply(429), reply(409, "request-in-progress"), reply(201)])
    retries = Retries()

    assert (await patiently(server, retries=retries)).status == 201
    assert retries.reasons == {"ConnectionLost": 1, "503": 1, "429": 1, "409 in progress": 1}
    assert "1 × 503" in str(retries)


async def test_retry_after_is_honoured() -> None:
    """Who is told to wait longer than there is patience gives up and says what came last."""
    with pytest.raises(GaveUp, match="the last one was: 429"):
        await patiently(Server([reply(429, retry_after="30")]), patience=5)
