"""The deadline of a request, which `x-request-deadline-ms` gives in milliseconds that remain.

Everything below sees it by `backstay.resilience.remaining()`; calls of `backstay.http` and `backstay.resilience` keep
to it. `x-retry-attempt` marks a repetition: what serves one repeats nothing itself.
"""

from backstay.asgi.replies import refusal
from backstay.asgi.types import App, Receive, Scope, Send
from backstay.http.problems import DeadlineExceeded
from backstay.resilience import RETRY_HEADER, attempt_of, deadline, repeated_request
from backstay.resilience.deadline import HEADER

DEFAULT_DEADLINE = 10.0
"""Seconds for a request that brings no deadline, and the most that one may bring."""
DEADLINE_FIELD = HEADER.encode()
RETRY_FIELD = RETRY_HEADER.encode()


def time_left(field: bytes | None, limit: float) -> float:
    """Return the seconds that a request has, by its deadline header; at most `limit`, and `limit` for no number."""
    if field is None:
        return limit
    try:
        return min(int(field) / 1000, limit)
    except (ValueError, OverflowError):
        return limit


def passed() -> DeadlineExceeded:
    """Return the refusal of a request whose time was over when it arrived."""
    return DeadlineExceeded("the deadline had passed when the request arrived")


class Deadlines:
    """Middleware: the request's deadline holds inside; a request that arrives after it is answered 504."""

    def __init__(self, app: App, *, limit: float = DEFAULT_DEADLINE) -> None:
        """`limit`: seconds for a request without a deadline, and the most that one may bring."""
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        left = time_left(headers.get(DEADLINE_FIELD), self.limit)
        if left <= 0:
            await refusal(passed(), scope).send(send)
            return
        repeated = headers.get(RETRY_FIELD)
        with deadline(left), repeated_request(None if repeated is None else attempt_of(repeated)):
            await self.app(scope, receive, send)


__all__ = ["DEADLINE_FIELD", "DEFAULT_DEADLINE", "RETRY_FIELD", "Deadlines", "passed", "time_left"]
