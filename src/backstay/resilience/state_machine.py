"""The circuit breaker's state machine: synchronous, without I/O, every method takes `now` (monotonic seconds).

Invariants
- A permit is the era (a number) of the state that gave it. A result or release of an older era decides nothing.
- A probe's permit ends exactly once: by a result, or given back.
- OPEN turns to HALF_OPEN, and an undecided HALF_OPEN back to OPEN, by whoever looks next: no timer can be stale.

Two flags let a caller skip it (see `circuit_breaker`): `passing`, a permit needs no question; `quiet`, a fast success
changes nothing but a counter. Both are always False while a lock is needed.

Source of the rules: `CircuitBreakerStateMachine` and `CircuitBreakerMetrics` of Resilience4j 2.
"""

import threading
from dataclasses import dataclass

from backstay.resilience import events
from backstay.resilience.config import CircuitBreakerConfig
from backstay.resilience.errors import CallNotPermitted, IllegalTransition
from backstay.resilience.events import State
from backstay.resilience.windows import FAILED, SLOW, CountWindow, NoWindow, Window, open_window

NO_RATE = -1.0  # fewer calls than needed for a verdict
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN  # a lookup on the class costs 40 ns, a hash 150
DISABLED, FORCED_OPEN, METRICS_ONLY = State.DISABLED, State.FORCED_OPEN, State.METRICS_ONLY
FORBIDDEN = frozenset(
    {
        (State.CLOSED, State.HALF_OPEN),
        (State.METRICS_ONLY, State.OPEN),
        (State.METRICS_ONLY, State.HALF_OPEN),
    }
)
PASSING = (CLOSED, DISABLED, METRICS_ONLY)
UNCOUNTED = (DISABLED, FORCED_OPEN)  # no window, and no events but their transitions
FORCED_EVENTS = (events.StateTransition, events.BreakerReset)


@dataclass(frozen=True, slots=True)
class BreakerStatistics:
    """A snapshot. Rates are percent, −1.0 while there are too few calls for a verdict."""

    state: State
    failure_rate: float
    slow_call_rate: float
    buffered_calls: int
    failed_calls: int
    slow_calls: int
    slow_failed_calls: int
    not_permitted_calls: int  # as long as the window shown lives
    succeeded_total: int
    failed_total: int
    ignored_total: int
    not_permitted_total: int
    slow_succeeded_total: int
    slow_failed_total: int


class StateMachine:
    """State, window, permits and totals of one circuit breaker."""

    __slots__ = (
        "_exceeded",
        "_half_until",
        "_hushed",
        "_needed",
        "_not_permitted",
        "_open_until",
        "_permits",
        "_window",
        "attempts",
        "config",
        "era",
        "failed",
        "ignored",
        "name",
        "passing",
        "publisher",
        "quiet",
        "refused",
        "slow",
        "slow_failed",
        "slow_succeeded",
        "state",
        "succeeded",
    )

    def __init__(self, name: str, config: CircuitBreakerConfig, now: float) -> None:
        self.name = name
        self.config = config
        self.publisher = events.Publisher(self._listeners_changed)
        self.succeeded = self.failed = self.ignored = self.refused = self.slow_succeeded = self.slow_failed = 0
        self.era = self.attempts = 0
        self._exceeded: set[type[events.Event]] = set()
        self._hushed = config.fail_result is None
        self._not_permitted = 0
        self._window: Window = NoWindow()
        self.slow = config.slow.seconds
        self._enter(CLOSED, open_window(config.window, now), now)

    # -- calls ----------------------------------------------------------------------------------------------------

    def acquire(self, now: float) -> int:
        """A permit for one call, to be handed to `settle` or `release`. Raises `CallNotPermitted`."""
        state = self.state
        if state is OPEN:
            if now > self._open_until:
                self._go(HALF_OPEN, now)
        elif state is HALF_OPEN:
            if now > self._half_until:
                self._go(OPEN, now)
        elif state is not FORCED_OPEN:
            return self.era
        if self._permits > 0:
            self._permits -= 1
            return self.era
        self.refused += 1
        self._not_permitted += 1
        if self.publisher.heard:
            self.publish(events.NotPermitted)
        wait = self._open_until - now
        raise CallNotPermitted(self.name, wait if wait > 0.0 else 0.0, self.state)

    def settle(self, era: int, duration: float, now: float, *, failed: bool) -> None:
        """The call ended after `duration` seconds; it counts if its era is still the current one."""
        slow = duration > self.slow
        if failed:
            self.failed += 1
            self.slow_failed += slow
        else:
            self.succeeded += 1
            self.slow_succeeded += slow
        if era != self.era and not self.config.parity:
            return
        window = self._window
        window.record((FAILED if failed else 0) | (SLOW if slow else 0), now)
        if window.failed or window.slow or self.state is HALF_OPEN:
            self.quiet = False
            if window.total >= self._needed:
                self._judge(window, now)
        elif window.clean:
            self._reflect()

    def release(self, era: int) -> None:
        """The call said nothing about the dependency: give a probe's permit back."""
        if self.state is HALF_OPEN and (era == self.era or self.config.parity):
            self._permits += 1

    def _judge(self, window: Window, now: float) -> None:
        state = self.state
        failing = window.failed * 100.0 >= self.config.failure_rate * window.total
        slow = window.slow * 100.0 >= self.config.slow.rate * window.total
        if state is HALF_OPEN:
            self._go(OPEN if failing or slow else CLOSED, now)
            return
        if not (failing or slow) or state is OPEN:
            return
        if failing:
            self._exceed(events.FailureRateExceeded, window.failed * 100.0 / window.total)
        if slow:
            self._exceed(events.SlowCallRateExceeded, window.slow * 100.0 / window.total)
        if state is CLOSED:
            self._go(OPEN, now)

    def _exceed(self, event: type[events.Event], rate: float) -> None:
        if event not in self._exceeded:  # once a stay; only METRICS_ONLY stays long enough to notice
            self._exceeded.add(event)
            self.publish(event, rate=rate)

    # -- transitions ----------------------------------------------------------------------------------------------

    def look(self, now: float) -> State:
        """The state at `now`: as it is, but with `auto_half_open` an open breaker whose wait is over turns."""
        if self.config.auto_half_open and self.state is OPEN and now > self._open_until:
            self._go(HALF_OPEN, now)
        return self.state

    def transition(self, state: State, now: float, *, wait: float | None = None) -> None:
        """Go to `state` by hand, with `wait` seconds in OPEN; `IllegalTransition` if that makes no sense."""
        if (self.state, state) in FORBIDDEN:
            raise IllegalTransition(f"CircuitBreaker '{self.name}' can't go from {self.state.value} to {state.value}")
        self._go(state, now, wait)

    def reset(self, now: float) -> None:
        """A fresh closed state, whatever was before."""
        old = self.state
        self.attempts = 0
        self._not_permitted = 0
        self._enter(CLOSED, open_window(self.config.window, now), now)
        if old is not CLOSED:
            self.publish(events.StateTransition, from_state=old, to_state=CLOSED)
        self.publish(events.BreakerReset)

    def reconfigure(self, config: CircuitBreakerConfig, now: float) -> None:
        """Use `config` from now on; outcomes already counted stay, as many as the new window holds."""
        old, self.config = self.config, config
        self.slow = config.slow.seconds
        self._hushed = config.fail_result is None
        if self.state in (CLOSED, OPEN, METRICS_ONLY) and old.window != config.window:
            self._window = self._window.resized(config.window, now)
        if self.state is not HALF_OPEN:
            self._needed = config.needed
        self._listeners_changed()
        self.publish(events.ConfigChanged)

    def _go(self, new: State, now: float, wait: float | None = None) -> None:
        old = self.state
        if new in (CLOSED, DISABLED, METRICS_ONLY):
            self.attempts = 0
        elif new is FORCED_OPEN or (new is OPEN and wait is None):
            self.attempts += 1
        if new is OPEN:
            window = self._window  # an open breaker shows what opened it, and its refusals
        else:
            window = self._fresh(new, now)
            self._not_permitted = 0
        self._enter(new, window, now, wait)
        if old is not new:
            self.publish(events.StateTransition, from_state=old, to_state=new)

    def _fresh(self, state: State, now: float) -> Window:
        if state is HALF_OPEN:
            return CountWindow(self.config.half_open.calls)
        return NoWindow() if state in UNCOUNTED else open_window(self.config.window, now)

    def _enter(self, state: State, window: Window, now: float, wait: float | None = None) -> None:
        config = self.config
        self.state = state
        self._window = window
        self.era += 1  # what began before now is stale from here on
        self._permits = config.half_open.calls if state is HALF_OPEN else 0
        self._needed = min(config.min_calls, config.half_open.calls) if state is HALF_OPEN else config.needed
        self._open_until = now + (config.wait(self.attempts) if wait is None else wait) if state is OPEN else 0.0
        limit = config.half_open.max_wait
        self._half_until = now + limit if state is HALF_OPEN and limit else float("inf")
        self._exceeded.clear()
        self._reflect()

    # -- listeners, flags, numbers --------------------------------------------------------------------------------

    def publish(self, event: type[events.Event], **details: object) -> None:
        """Tell listeners, unless the present state is one of those that keep quiet."""
        if self.state not in UNCOUNTED or event in FORCED_EVENTS:
            self.publisher.emit(event, self.name, **details)

    def _listeners_changed(self) -> None:
        self._hushed = self.config.fail_result is None and not self.publisher.wants(events.CallSucceeded)
        self._reflect()

    def _reflect(self) -> None:
        self.passing = self.state in PASSING
        self.quiet = self._hushed and self.state is CLOSED and self._window.clean

    def statistics(self, now: float) -> BreakerStatistics:
        """A snapshot of state, rates and counts."""
        state, window = self.look(now), self._window
        window.advance(now)
        enough = 0 < window.total >= self._needed
        return BreakerStatistics(
            state=state,
            failure_rate=window.failed * 100.0 / window.total if enough else NO_RATE,
            slow_call_rate=window.slow * 100.0 / window.total if enough else NO_RATE,
            buffered_calls=window.total,
            failed_calls=window.failed,
            slow_calls=window.slow,
            slow_failed_calls=window.slow_failed,
            not_permitted_calls=self._not_permitted,
            succeeded_total=self.succeeded,
            failed_total=self.failed,
            ignored_total=self.ignored,
            not_permitted_total=self.refused,
            slow_succeeded_total=self.slow_succeeded,
            slow_failed_total=self.slow_failed,
        )


class SharedStateMachine(StateMachine):
    """The same for several threads: every step takes a lock, and nothing may be skipped."""

    __slots__ = ("_lock",)

    def __init__(self, name: str, config: CircuitBreakerConfig, now: float) -> None:
        self._lock = threading.RLock()
        super().__init__(name, config, now)

    def acquire(self, now: float) -> int:
        """As in the base class."""
        with self._lock:
            return super().acquire(now)

    def settle(self, era: int, duration: float, now: float, *, failed: bool) -> None:
        """As in the base class."""
        with self._lock:
            super().settle(era, duration, now, failed=failed)

    def release(self, era: int) -> None:
        """As in the base class."""
        with self._lock:
            super().release(era)

    def transition(self, state: State, now: float, *, wait: float | None = None) -> None:
        """As in the base class."""
        with self._lock:
            super().transition(state, now, wait=wait)

    def reset(self, now: float) -> None:
        """As in the base class."""
        with self._lock:
            super().reset(now)

    def statistics(self, now: float) -> BreakerStatistics:
        """As in the base class."""
        with self._lock:
            return super().statistics(now)

    def _reflect(self) -> None:
        self.passing = self.quiet = False


__all__ = ["BreakerStatistics", "SharedStateMachine", "StateMachine"]
