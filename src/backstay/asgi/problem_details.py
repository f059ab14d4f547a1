"""Every error answer of an application as problem details (RFC 9457)."""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from backstay.asgi.errors import of_status
from backstay.asgi.replies import Reply, refusal
from backstay.asgi.types import App, Message, Receive, Scope, Send
from backstay.http.problems import FieldError

MAX_REWRITTEN = 64 * 1024
"""Bytes of an error's body that are read for its details; longer ones pass as they are."""

_OWN = frozenset((b"content-type", b"content-length"))


class ProblemDetails:
    """Middleware: an exception becomes a problem, and error answers in JSON or text are rewritten as one.

    `Problem`s keep their status and members; errors of the resilience policies, of tokens and lost connections become
    503, 504, 401 or 403; what nobody foresaw is logged and answered 500 without its text.
    """

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer = _Answer(scope, send)
        try:
            await self.app(scope, receive, answer.send)
        except Exception as error:
            if answer.started:
                raise
            await refusal(error, scope).send(send)


class _Answer:
    """The answer of the application, held back while it may have to be rewritten."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._start: Message | None = None  # held back
        self._body = bytearray()
        self.started = False

    async def send(self, message: Message) -> None:
        """ASGI: pass the message on, or hold it back."""
        if message["type"] == "http.response.start" and _is_rewritable(message):
            self._start = message
        elif self._start is None:
            self.started = True
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            more = message.get("more_body", False)
            if more and len(self._body) <= MAX_REWRITTEN:
                return
            start, self._start, self.started = self._start, None, True
            if more or len(self._body) > MAX_REWRITTEN:
                await self._send(start)
                await self._send({**message, "body": bytes(self._body)})
            else:
                await _rewritten(start, bytes(self._body), self._scope).send(self._send)


def _is_rewritable(start: Message) -> bool:
    if start["status"] < 400:
        return False
    media = dict(start.get("headers", ())).get(b"content-type", b"").partition(b";")[0].strip().lower()
    return media in (b"application/json", b"text/plain", b"")


def _rewritten(start: Message, body: bytes, scope: Scope) -> Reply:
    detail, errors = _details(body)
    reply = refusal(of_status(start["status"], detail, errors=errors), scope)
    reply.headers += [field for field in start.get("headers", ()) if field[0].lower() not in _OWN]
    return reply


def _details(body: bytes) -> tuple[str, list[FieldError]]:
    """Return the details in the body of an error: Starlette's and Litestar's text, FastAPI's list of fields."""
    try:
        told = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace"), []
    detail = told.get("detail", "") if isinstance(told, dict) else ""
    if isinstance(detail, list):
        errors = list(_field_errors(detail))
        return "; ".join(f"{error.pointer}: {error.reason}" for error in errors[:3]), errors
    return detail if isinstance(detail, str) else "", []


def _field_errors(listed: Iterable[Any]) -> Iterator[FieldError]:
    for each in listed:
        place = [str(step) for step in each.get("loc", ())] if isinstance(each, dict) else []
        if place:
            steps = place[1:] if place[0] == "body" else place
            pointer = "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in steps)
            yield FieldError(pointer, str(each.get("msg", "is wrong")))


__all__ = ["MAX_REWRITTEN", "ProblemDetails"]
