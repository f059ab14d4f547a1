"""Middleware that answers a repeated `Idempotency-Key` with the first answer.

The claim and the answer are stored in transactions of their own, before and after the application's. A process that
dies in between leaves the operation done and its answer unknown, and a repeat does it again once `locked_for` is over.
For an effect once, claim the key in the transaction that has the effect: `backstay.asgi.idempotency.IdempotencyKey`.
"""

from collections.abc import Collection
from typing import Any

import msgspec

from backstay.asgi.answers import Answer
from backstay.asgi.idempotency import COMPONENT, MAX_KEY, IdempotencyKey, is_kept, release
from backstay.asgi.identity import STATE
from backstay.asgi.replies import Headers, Reply, refusal, reply_of
from backstay.asgi.types import App, Message, Receive, Scope, Send
from backstay.db import Database
from backstay.http.problems import TooLarge

LOCKED_FOR = 30.0
"""Seconds for which a claim keeps repeats away; longer than any answer takes."""
MAX_BODY = 1024 * 1024
"""Bytes of a request with a key, and of an answer that is stored."""
HEADER = b"idempotency-key"


class Idempotency:
    """Middleware: the same key of the same caller for the same path gets the first answer, byte for byte.

    Another body is answered 422, a repeat while the first is being answered 409. Answers that a later attempt may do
    better (400, 401, 403, 413, 422, 429, 5xx) aren't stored, nor are longer ones than `max_body`, nor cookies. Put it
    inside of `Identity`: keys belong to a caller.
    """

    def __init__(
        self,
        app: App,
        *,
        db: Database,
        methods: Collection[str] = ("POST", "PATCH"),
        required: bool = False,
        locked_for: float = LOCKED_FOR,
        max_body: int = MAX_BODY,
    ) -> None:
        """`db` gets the table of keys when it is migrated; `required` refuses requests without a key."""
        self.app = app
        self._db = db
        self._methods = frozenset(methods)
        self._required = required
        self._locked_for = locked_for
        self._max_body = max_body
        db.requires(COMPONENT)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http" or scope["method"] not in self._methods:
            await self.app(scope, receive, send)
            return
        header = dict(scope["headers"]).get(HEADER)
        if header is None and not self._required:
            await self.app(scope, receive, send)
            return
        try:
            caller = getattr(scope.get("state", {}).get(STATE), "id", "")
            key = IdempotencyKey.of_header(header, caller, f"{scope['method']} {scope['path']}")
            body = await self._read(receive)
            async with self._db.transaction() as tx:
                first = await key.claim(tx, _digestible(body), locked_for=self._locked_for)
        except Exception as error:  # noqa: BLE001 - the client gets a problem, whatever happened
            await refusal(error, scope).send(send)
            return
        if first is not None:
            await reply_of(first).send(send)
            return
        await self._answer(key, scope, _replayed(body, receive), send)

    async def _answer(self, key: IdempotencyKey, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer; store its answer before it is sent, or release the key."""
        answer = _Collected(send, self._max_body)
        try:
            await self.app(scope, receive, answer.send)
            if answer.whole is not None and is_kept(answer.whole):
                async with self._db.transaction() as tx:
                    kept = await key.answer(
                        tx, answer.whole.body, status=answer.whole.status, headers=dict(answer.whole.headers)
                    )
                await answer.reply(kept).send(send)
                return
        except BaseException:
            await self._release(key)
            raise
        await self._release(key)
        if answer.whole is not None:
            await answer.reply(answer.whole).send(send)

    async def _release(self, key: IdempotencyKey) -> None:
        assert key.operation_id is not None
        async with self._db.transaction() as tx:
            await release(tx, key.operation_id)

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_body:
                raise TooLarge(f"the body may have at most {self._max_body} bytes", limit=self._max_body)
            if not message.get("more_body", False):
                return bytes(body)


class _Collected:
    """The application's answer, collected while it is small enough to be stored; else passed on."""

    def __init__(self, send: Send, limit: int) -> None:
        self._send = send
        self._limit = limit
        self._start: Message | None = None
        self._body = bytearray()
        self.whole: Answer[bytes] | None = None
        """The answer, once it is complete and nothing of it was passed on."""
        self.cookies: Headers = []
        """Cookies that the answer sets; they go to its first receiver only."""

    async def send(self, message: Message) -> None:
        """ASGI."""
        if message["type"] == "http.response.start":
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if len(self._body) > self._limit:
                start, self._start = self._start, None
                await self._send(start)
                await self._send({**message, "body": bytes(self._body)})
            elif not message.get("more_body", False):
                self.whole = Answer(bytes(self._body), self._start["status"], self._headers())

    def _headers(self) -> dict[str, str]:
        """Return the header fields by name; several of one name are one list (RFC 9110 §5.3), but not cookies."""
        headers: dict[str, str] = {}
        assert self._start is not None
        for raw_name, raw_value in self._start.get("headers", ()):
            name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
            if name == "set-cookie":
                self.cookies.append((b"set-cookie", raw_value))
            else:
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
        return headers

    def reply(self, answer: Answer[Any]) -> Reply:
        """Return an answer for the first receiver."""
        reply = reply_of(answer)
        reply.headers += self.cookies
        return reply


def _digestible(body: bytes) -> Any:
    """Return what the digest of a body is made of: JSON as values, so that its spelling doesn't matter."""
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body that has been read, then what comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


__all__ = ["LOCKED_FOR", "MAX_BODY", "MAX_KEY", "Idempotency"]
