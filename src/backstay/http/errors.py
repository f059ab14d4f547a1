"""Errors between the two ends of an HTTP connection.

HttpError (BackstayError)
├── FramingError            the peer's message breaks the rules of HTTP/1.1 or a limit
├── ConnectFailed           no connection, nothing was sent            (also ConnectionError)
│   └── PoolFull            every allowed connection to the address is busy
├── ConnectionLost          the connection died before the whole answer (also ConnectionError)
├── ResponseTimeout         the answer wasn't complete in time          (also TimeoutError)
└── BadResponse             the answer isn't HTTP, or is larger than allowed
"""

from backstay.errors import BackstayError


class HttpError(BackstayError):
    """An HTTP exchange failed."""


class FramingError(HttpError):
    """A request breaks the rules of HTTP/1.1 or a limit; `status` is the answer to its sender."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class ConnectFailed(HttpError, ConnectionError):
    """No connection could be made, so nothing was sent."""


class PoolFull(ConnectFailed):
    """Every allowed connection to this address is busy, so nothing was sent."""


class ConnectionLost(HttpError, ConnectionError):
    """The connection was lost before the whole answer arrived; `answered` is True if any byte of it had."""

    def __init__(self, message: str = "", *, answered: bool = False) -> None:
        super().__init__(message or "the connection was closed before the whole answer arrived")
        self.answered = answered


class ResponseTimeout(HttpError, TimeoutError):
    """The whole answer didn't arrive in time."""


class BadResponse(HttpError):
    """The answer isn't valid HTTP/1.1, or is larger than allowed."""
