"""One deadline per request, kept by every layer below it.

The deadline is on the monotonic clock; over HTTP it travels as the milliseconds that remain (`x-request-deadline-ms`),
so clocks of two machines never meet. Events carry none.

A call that ends because its caller had no more time says nothing about the dependency: `DeadlineTimeout` is an error of
its own, so that no policy takes the caller's impatience for the dependency's failure.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

from backstay.errors import ConfigError
from backstay.resilience.ambient import Ambient
from backstay.resilience.durations import Seconds, duration
from backstay.resilience.errors import DeadlineExceeded, DeadlineTimeout

HEADER = "x-request-deadline-ms"

_deadline: Ambient[float] = Ambient("backstay_deadline")
_keeper: ContextVar[tuple[float, "asyncio.Task[Any]"] | None] = ContextVar("backstay_deadline_keeper", default=None)
"""The deadline that a call further out ends at already, and the task that it does so for."""

scope = _deadline.scope
"""None where no deadline can be in force: cheaper than `current`."""
current = _deadline.get
"""The deadline in force on the monotonic clock, or None."""


def deadline(seconds: Seconds | None) -> AbstractContextManager[None]:
    """Everything inside must be done within `seconds` (a number or `timedelta`); an outer, earlier deadline stays.

    None takes the deadline away, for work that outlives the request. A task made inside keeps to the deadline until
    this block ends. Raises `ConfigError` for what is no number of seconds.
    """
    end: float | None = None
    if seconds is not None:
        left = duration(seconds)
        if left is None:
            raise ConfigError([f"deadline: {seconds!r} is not a number of seconds"])
        outer = _deadline.get()
        end = time.monotonic() + left
        end = end if outer is None or end < outer else outer
    return _deadline.holding(end)


def remaining() -> float | None:
    """Seconds left until the deadline in force (negative when it has passed), or None without one."""
    end = _deadline.get()
    return None if end is None else end - time.monotonic()


def clamp(timeout: float) -> float:
    """Return the smaller of `timeout` and the remaining time; raises `DeadlineExceeded` when none remains."""
    left = remaining()
    if left is None:
        return timeout
    if left <= 0:
        raise DeadlineExceeded("deadline")
    return min(timeout, left)


def check() -> None:
    """Raise `DeadlineExceeded` when the deadline in force has passed."""
    left = remaining()
    if left is not None and left <= 0:
        raise DeadlineExceeded("deadline")


def within_deadline(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`call`, ended by `DeadlineTimeout` at the deadline in force; `call` itself where none is, or it is kept already.

    Raises `DeadlineExceeded` when the deadline has passed.
    """
    end = _deadline.get()
    if end is None:
        return call
    check()
    task = asyncio.current_task()
    if task is None or _keeper.get() == (end, task):
        return call

    async def bounded(*args: Any, **kwargs: Any) -> Any:
        token = _keeper.set((end, task))
        limit = asyncio.timeout(max(0.0, end - time.monotonic()))
        try:
            async with limit:
                return await call(*args, **kwargs)
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DeadlineTimeout("the deadline of the request passed during the call") from error
        finally:
            with contextlib.suppress(ValueError):  # closed in another context, such as the garbage collector's
                _keeper.reset(token)

    return bounded


__all__ = ["HEADER", "check", "clamp", "current", "deadline", "remaining", "scope", "within_deadline"]
