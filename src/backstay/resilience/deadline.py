"""One deadline per request, seen by every layer below it.

The deadline is kept on the monotonic clock in a context variable; over HTTP it travels as the milliseconds that
remain (`x-request-deadline-ms`), so clocks of two machines never meet. Events carry none.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from backstay.resilience.errors import DeadlineExceeded

HEADER = "x-request-deadline-ms"

_deadline: ContextVar[float | None] = ContextVar("backstay_deadline", default=None)


current = _deadline.get
"""The current request's deadline on the monotonic clock, or None."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Everything inside must be done within `seconds`; an outer, earlier deadline stays in force."""
    end = time.monotonic() + seconds
    outer = _deadline.get()
    token = _deadline.set(end if outer is None or end < outer else outer)
    try:
        yield
    finally:
        _deadline.reset(token)


def remaining() -> float | None:
    """Seconds left of the current request's deadline (negative when it has passed), or None without one."""
    end = _deadline.get()
    return None if end is None else end - time.monotonic()


def clamp(timeout: float) -> float:
    """The smaller of `timeout` and what remains; raises `DeadlineExceeded` when nothing remains."""
    end = _deadline.get()
    if end is None:
        return timeout
    left = end - time.monotonic()
    if left <= 0:
        raise DeadlineExceeded("deadline")
    return min(timeout, left)
