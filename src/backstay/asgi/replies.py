"""Whole answers as bytes, and how they are sent."""

from collections.abc import Mapping
from typing import Any

from backstay.asgi.answers import JSON, Answer, encode, encode_json
from backstay.asgi.errors import problem_of
from backstay.asgi.types import Scope, Send
from backstay.http.problems import MEDIA_TYPE, Problem
from backstay.telemetry.trace import current

Headers = list[tuple[bytes, bytes]]


class Reply:
    """A whole answer as bytes."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, status: int, headers: Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    async def send(self, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status, "headers": self.headers})
        await send({"type": "http.response.body", "body": self.body})


def reply_of(answer: Answer[Any]) -> Reply:
    """Return an answer as it goes out."""
    body = encode(answer.body)
    headers = _encoded(answer.headers)
    names = {name for name, _ in headers}
    if b"content-type" not in names and body:
        headers.append(content_type(JSON))
    if b"content-length" not in names and answer.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(body)))
    return Reply(answer.status, headers, body)


def reply_of_problem(problem: Problem, *, instance: str, trace_id: str) -> Reply:
    """Return a problem as it goes out."""
    body = encode_json(problem.body(instance=instance, trace_id=trace_id))
    headers = [content_type(MEDIA_TYPE), (b"content-length", b"%d" % len(body)), *_encoded(problem.headers)]
    if problem.status in (408, 413):
        headers.append((b"connection", b"close"))
    return Reply(problem.status, headers, body)


def refusal(error: Exception, scope: Scope) -> Reply:
    """Return the problem that an error is to the client, with the path and the current trace."""
    context = current()
    trace_id = "" if context is None else context.trace_id
    return reply_of_problem(problem_of(error), instance=scope["path"], trace_id=trace_id)


def content_type(value: str) -> tuple[bytes, bytes]:
    """Return the header field that declares a media type."""
    return (b"content-type", value.encode("latin-1"))


def _encoded(headers: Mapping[str, str]) -> Headers:
    return [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]


__all__ = ["Headers", "Reply", "content_type", "refusal", "reply_of", "reply_of_problem"]
