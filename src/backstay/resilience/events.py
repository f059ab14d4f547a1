"""Events of the policies: frozen records, created only if there is a listener."""

import inspect
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, TypeVar

from backstay.clock import SYSTEM


class State(Enum):
    """States of a circuit breaker."""

    CLOSED = "CLOSED"  # all calls pass and are counted            → OPEN when a rate reaches its threshold
    OPEN = "OPEN"  # no call passes                                → HALF_OPEN after the wait
    HALF_OPEN = "HALF_OPEN"  # a few probes pass                   → CLOSED or OPEN by their outcome
    DISABLED = "DISABLED"  # all calls pass, nothing is counted    → only by hand
    FORCED_OPEN = "FORCED_OPEN"  # no call passes                  → only by hand
    METRICS_ONLY = "METRICS_ONLY"  # all pass and are counted      → only by hand


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events: the policy's `name` and the wall-clock time `at`."""

    name: str
    at: datetime


@dataclass(frozen=True, slots=True)
class CallSucceeded(Event):
    """A call that the breaker let through succeeded after `duration` seconds."""

    duration: float


@dataclass(frozen=True, slots=True)
class CallFailed(Event):
    """A call that the breaker let through failed after `duration` seconds."""

    duration: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class CallIgnored(Event):
    """A call ended with an error that proves nothing about the dependency."""

    duration: float
    error: BaseException


@dataclass(frozen=True, slots=True)
class NotPermitted(Event):
    """The breaker refused a call."""


@dataclass(frozen=True, slots=True)
class FailureRateExceeded(Event):
    """The failure rate (percent) reached the threshold."""

    rate: float


@dataclass(frozen=True, slots=True)
class SlowCallRateExceeded(Event):
    """The slow call rate (percent) reached the threshold."""

    rate: float


@dataclass(frozen=True, slots=True)
class StateTransition(Event):
    """The breaker went from one state to another."""

    from_state: State
    to_state: State


@dataclass(frozen=True, slots=True)
class BreakerReset(Event):
    """The breaker was reset to a fresh closed state."""


@dataclass(frozen=True, slots=True)
class ConfigChanged(Event):
    """The breaker was reconfigured."""


class ResultRecordedAsFailure(Exception):
    """The `error` of a `CallFailed` whose call returned a result that counts as a failure."""

    def __init__(self, result: object) -> None:
        super().__init__(f"a result of type {type(result).__name__} was recorded as a failure")
        self.result = result


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """Attempt number `attempt` failed; the next one follows after `wait` seconds."""

    attempt: int
    wait: float
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class RetriesExhausted(Event):
    """The last attempt failed too, or there was no time or leave for another."""

    attempts: int
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class RetrySucceeded(Event):
    """A call succeeded after `attempts` attempts, at least two."""

    attempts: int


@dataclass(frozen=True, slots=True)
class RetryIgnored(Event):
    """A call failed with an error that isn't worth another attempt."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class BudgetSpent(Event):
    """Attempt number `attempt` failed and the budget of retries allows no other."""

    attempt: int
    error: BaseException | None


@dataclass(frozen=True, slots=True)
class BulkheadRejected(Event):
    """A bulkhead refused a call."""


@dataclass(frozen=True, slots=True)
class RateLimitRejected(Event):
    """A rate limiter refused a call; the next permission comes in `retry_after` seconds."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class TimedOut(Event):
    """A time limiter ended a call."""

    timeout: float


@dataclass(frozen=True, slots=True)
class FallbackTaken(Event):
    """A fallback answered in place of a call that ended with `error`."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class FaultInjected(Event):
    """A fault injection acted on a call: `kind` is fault, latency or outcome."""

    kind: str


E = TypeVar("E", bound=Event)
Listener = Callable[[Any], None]


_delivering = threading.local()  # `publishers`: those whose events this thread delivers at the moment


class Publisher:
    """Listeners by event type. A listener's failure never reaches the caller of the guarded function.

    `emit` calls the listeners; `post` keeps an event for `deliver`, for those that are in the middle of a change.
    """

    __slots__ = ("_changed", "_listeners", "failures", "has_listeners", "pending")

    def __init__(self, changed: Callable[[], None] | None = None) -> None:
        self._listeners: dict[type[Event], tuple[Listener, ...]] = {}
        self._changed = changed  # called when listeners come or go
        self.has_listeners = False  # whether anybody listens to anything
        self.failures = 0  # errors raised by listeners
        self.pending: list[tuple[type[Event], dict[str, Any]]] = []  # posted, and not delivered yet

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type, `Event` meaning all; returns a function that stops it.

        Raises `TypeError` for a coroutine function, which nobody would await: a listener may make a task of one.
        """
        if inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(getattr(listener, "__call__", None)):  # noqa: B004
            raise TypeError(f"{listener!r} is asynchronous: a listener is a plain function")
        self._listeners[event] = (*self._listeners.get(event, ()), listener)
        self._tell()

        def remove() -> None:
            rest = list(self._listeners[event])
            if listener in rest:
                rest.remove(listener)
                self._listeners[event] = tuple(rest)
                self._tell()

        return remove

    def _tell(self) -> None:
        self.has_listeners = any(self._listeners.values())
        if self._changed is not None:
            self._changed()

    def wants(self, event: type[Event]) -> bool:
        """Return whether this type has a listener."""
        return self.has_listeners and bool(self._listeners.get(event) or self._listeners.get(Event))

    def emit(self, event: type[Event], name: str, **details: Any) -> None:
        """Create the event and call its listeners, if there are any."""
        listeners = self._listeners.get(event, ()) + self._listeners.get(Event, ())
        if not listeners:
            return
        record = event(name, SYSTEM.now(), **details)
        for listener in listeners:
            try:
                answer: object = listener(record)
                if inspect.iscoroutine(answer):
                    answer.close()
                    self.failures += 1
            except Exception:  # noqa: BLE001 - isolation of listeners is the point
                self.failures += 1

    def post(self, event: type[Event], details: dict[str, Any]) -> None:
        """Keep an event for `deliver`."""
        self.pending.append((event, details))

    def deliver(self, name: str) -> None:
        """Call the listeners of what was posted, in that order. Not to be called under a lock.

        What a listener's own calls bring about is delivered after the event that it is called for.
        """
        if not self.pending:
            return
        publishers: set[int] = _delivering.__dict__.setdefault("publishers", set())
        if id(self) in publishers:
            return
        publishers.add(id(self))
        try:
            while self.pending:
                try:
                    event, details = self.pending.pop(0)
                except IndexError:  # another thread was quicker
                    break
                self.emit(event, name, **details)
        finally:
            publishers.discard(id(self))
