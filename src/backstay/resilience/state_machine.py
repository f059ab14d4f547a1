"""The circuit breaker's state machine: synchronous, without I/O, every method takes `now` (monotonic seconds).

Invariants
- A permit is the era (a number) of the state that gave it. A result or release of an older era decides nothing.
- A probe's permit ends exactly once: by a result, or given back.
- OPEN turns to HALF_OPEN, and an undecided HALF_OPEN back to OPEN, by whoever looks next: no timer can be stale.

Two numbers let a caller skip most of it (see `shells`). `free` is the era while a permit needs no question, else 0.
`quiet` is the era while a fast success that ends before `until` can't open the breaker, else 0: such a success is only
counted in `succeeded`, and the window is told by whoever looks at it next (`_catch_up`). That holds in CLOSED while no
failure is in the window, or enough calls are: one more success can only lower a rate then.

Source of the rules: `CircuitBreakerStateMachine` and `CircuitBreakerMetrics` of Resilience4j 2.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from backstay.resilience import events
from backstay.resilience.config import CircuitBreakerConfig
from backstay.resilience.errors import IllegalTransition
from backstay.resilience.events import State
from backstay.resilience.windows import FAILED, SLOW, CountWindow, NoWindow, Window, open_window

PASSED = float("-inf")  # the end of a wait that there is none of
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
COUNTING = (OPEN, HALF_OPEN, FORCED_OPEN)  # states in which attempts are counted
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
        "_alarm",
        "_exceeded",
        "_failed_limit",
        "_failing",
        "_half_until",
        "_hush",
        "_limits_of",
        "_lock",
        "_needed",
        "_open_until",
        "_permits",
        "_refused_before",
        "_seen",
        "_slow_limit",
        "_slowing",
        "_window",
        "attempts",
        "config",
        "era",
        "failed",
        "free",
        "heard",
        "ignored",
        "name",
        "publisher",
        "quiet",
        "refused",
        "slow",
        "slow_failed",
        "slow_succeeded",
        "state",
        "succeeded",
        "until",
        "wait",
    )

    def __init__(
        self, name: str, config: CircuitBreakerConfig, now: float, alarm: Callable[[float], None] | None = None
    ) -> None:
        self.name = name
        self.config = config
        self.publisher = events.Publisher(self._listeners_changed)
        self.succeeded = self.failed = self.ignored = self.refused = self.slow_succeeded = self.slow_failed = 0
        self.era = self._seen = self._refused_before = 0
        self._alarm = alarm  # called with the seconds after which somebody should look
        self._lock: Any = None  # an RLock once several threads use it
        self._exceeded: set[type[events.Event]] = set()
        state = config.initial_state
        self.attempts = 1 if state in COUNTING else 0
        self._window: Window = open_window(config.window, now)
        self._needed = config.needed
        self._permits = 0
        self._half_until = self._open_until = self.wait = 0.0
        self._failed_limit = self._slow_limit = 0
        self._adopt(config)
        self._enter(state, self._window if state is OPEN else self._fresh(state, now), now)

    # -- calls ----------------------------------------------------------------------------------------------------

    def acquire(self, now: float) -> int:
        """A permit for one call, to be handed to `settle` or `release`; 0: refused, for `wait` seconds at least."""
        wait = self._open_until - now
        if wait < 0.0:
            if self.free or self._may_try(now):
                return self.era
            wait = 0.0
        self.wait = wait
        self.refused += 1
        if self.heard:
            self.publish(events.NotPermitted)
        return 0

    def _may_try(self, now: float) -> bool:
        """Whether a state that doesn't let all pass lets this call pass, after moving on if its time has come."""
        if self.state is OPEN:
            self._go(HALF_OPEN, now)
        elif self.state is HALF_OPEN and now > self._half_until:
            self._give_up(now)
            if self.free or (self.state is OPEN and now > self._open_until):
                return bool(self.free) or self._may_try(now)
        if self._permits > 0:
            self._permits -= 1
            return True
        return False

    def settle(self, era: int, duration: float, now: float, failed: bool) -> None:
        """The call ended after `duration` seconds; it counts if its era is still the current one."""
        if self.succeeded != self._seen:
            self._catch_up()
        slow = duration > self.slow
        if failed:
            self.failed += 1
            outcome = FAILED | SLOW if slow else FAILED
            if slow:
                self.slow_failed += 1
        else:
            self._seen = self.succeeded = self.succeeded + 1
            outcome = SLOW if slow else 0
            if slow:
                self.slow_succeeded += 1
        if era != self.era and not self.config.parity:
            return
        window = self._window
        window.record(outcome, now)
        total = window.total
        if total >= self._needed:
            if total != self._limits_of:
                self._set_limits(total)
            if window.failed >= self._failed_limit or window.slow >= self._slow_limit:
                self._exceeded_rates(window, now)
                return
            if self.state is HALF_OPEN:
                self._go(CLOSED, now)
                return
            self.quiet = self._hush
        else:
            self.quiet = self._hush if not (window.failed or window.slow) else 0
        self.until = window.ends

    def release(self, era: int) -> None:
        """The call said nothing about the dependency: give a probe's permit back."""
        if self.state is HALF_OPEN and (era == self.era or self.config.parity):
            self._permits += 1

    def open_for(self, era: int, wait: float, now: float) -> None:
        """A call of this era asked for the breaker to be open for `wait` seconds; heard only while closed."""
        if self.state is CLOSED and (era == self.era or self.config.parity):
            self._go(OPEN, now, wait)

    def _catch_up(self) -> None:
        """Tell the window of the successes that were only counted."""
        self._window.credit(self.succeeded - self._seen)
        self._seen = self.succeeded

    def _set_limits(self, total: int) -> None:
        """The numbers of failed and of slow calls among `total` at which the rates are reached."""
        self._limits_of = total
        self._failed_limit = _reaching(self._failing, total)
        self._slow_limit = _reaching(self._slowing, total)

    def _exceeded_rates(self, window: Window, now: float) -> None:
        """The window holds too many failures or slow calls."""
        state, total = self.state, window.total
        if state is HALF_OPEN:
            self._go(OPEN, now)
        elif state is not OPEN:
            if window.failed * 100.0 >= self._failing * total:
                self._exceed(events.FailureRateExceeded, window.failed * 100.0 / total)
            if window.slow * 100.0 >= self._slowing * total:
                self._exceed(events.SlowCallRateExceeded, window.slow * 100.0 / total)
            if state is CLOSED and self.state is CLOSED:  # unless a listener moved it
                self._go(OPEN, now)

    def _exceed(self, event: type[events.Event], rate: float) -> None:
        if event not in self._exceeded:  # once a stay; only METRICS_ONLY stays long enough to notice
            self._exceeded.add(event)
            self.publish(event, rate=rate)

    # -- transitions ----------------------------------------------------------------------------------------------

    def look(self, now: float) -> State:
        """The state at `now`, after what needs no call: the end of an automatic wait, or of an undecided visit."""
        if self.state is OPEN and self.config.auto_half_open and now > self._open_until:
            self._go(HALF_OPEN, now)
        elif self.state is HALF_OPEN and now > self._half_until:
            self._give_up(now)
        return self.state

    def _give_up(self, now: float) -> None:
        """A half-open visit stayed undecided: go on as if somebody had looked at the very end of its time."""
        end, self._half_until = self._half_until, float("inf")
        self._go(self.config.half_open.then, end)
        if self.state is CLOSED:
            self._window.advance(now)

    def transition(self, state: State, now: float, *, wait: float | None = None) -> None:
        """Go to `state` by hand, with `wait` seconds in OPEN; `IllegalTransition` if that makes no sense."""
        if (self.state, state) in FORBIDDEN:
            raise IllegalTransition(f"CircuitBreaker '{self.name}' can't go from {self.state.value} to {state.value}")
        self._go(state, now, wait)

    def reset(self, now: float) -> None:
        """A fresh closed state, whatever was before."""
        old = self.state
        self._catch_up()
        self.attempts = 0
        self._refused_before = self.refused
        self._enter(CLOSED, open_window(self.config.window, now), now)
        if old is not CLOSED:
            self.publish(events.StateTransition, from_state=old, to_state=CLOSED)
        self.publish(events.BreakerReset)

    def reconfigure(self, config: CircuitBreakerConfig, now: float) -> None:
        """Use `config` from now on; outcomes already counted stay, as many as the new window holds."""
        self._catch_up()
        old = self.config
        self._adopt(config)
        if self.state in (CLOSED, OPEN, METRICS_ONLY) and old.window != config.window:
            self._window = self._window.resized(config.window, now)
        if self.state is HALF_OPEN:
            limit = config.half_open.max_wait
            self._half_until = now + limit if limit else float("inf")
        else:
            self._needed = config.needed
        self._listeners_changed()
        self.publish(events.ConfigChanged)

    def _adopt(self, config: CircuitBreakerConfig) -> None:
        self.config = config
        self.slow = config.slow.seconds
        self._failing = config.failure_rate
        self._slowing = config.slow.rate
        self._limits_of = -1

    def _go(self, new: State, now: float, wait: float | None = None) -> None:
        old = self.state
        if self.succeeded != self._seen:
            self._catch_up()
        if new in PASSING:
            self.attempts = 0
        elif new is FORCED_OPEN or (new is OPEN and wait is None):
            self.attempts += 1
        if new is OPEN:
            window = self._window  # an open breaker shows what opened it, and its refusals
        else:
            window = self._fresh(new, now)
            self._refused_before = self.refused
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
        if state is not OPEN:  # an open breaker keeps the window it came with, and what that one needs
            self._needed = min(config.min_calls, config.half_open.calls) if state is HALF_OPEN else config.needed
        self._open_until = now + (config.wait(self.attempts) if wait is None else wait) if state is OPEN else PASSED
        limit = config.half_open.max_wait
        self._half_until = now + limit if state is HALF_OPEN and limit else float("inf")
        self._exceeded.clear()
        self._reflect()
        if self._alarm is not None and ((state is HALF_OPEN and limit) or (state is OPEN and config.auto_half_open)):
            self._alarm((self._half_until if state is HALF_OPEN else self._open_until) - now)

    # -- listeners, flags, numbers --------------------------------------------------------------------------------

    def publish(self, event: type[events.Event], **details: object) -> None:
        """Tell listeners, unless the present state is one of those that keep quiet."""
        if self.state not in UNCOUNTED or event in FORCED_EVENTS:
            self.publisher.emit(event, self.name, **details)

    def _listeners_changed(self) -> None:
        self._reflect()

    def _reflect(self) -> None:
        """Set what lets callers skip this machine."""
        config, window = self.config, self._window
        free = self.state in PASSING
        seen = config.fail_result is None and config.open_if is None and not self.publisher.wants(events.CallSucceeded)
        self.heard = self.publisher.heard
        self.free = self.era if free else 0
        self._hush = self.era if self.state is CLOSED and seen and self._lock is None else 0
        self.quiet = self._hush if window.total >= self._needed or not (window.failed or window.slow) else 0
        self.until = window.ends

    def statistics(self, now: float) -> BreakerStatistics:
        """A snapshot of state, rates and counts."""
        state = self.look(now)
        self._catch_up()
        window = self._window
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
            not_permitted_calls=self.refused - self._refused_before,
            succeeded_total=self.succeeded,
            failed_total=self.failed,
            ignored_total=self.ignored,
            not_permitted_total=self.refused,
            slow_succeeded_total=self.slow_succeeded,
            slow_failed_total=self.slow_failed,
        )

    def share(self) -> None:
        """Be used by several threads from now on."""
        if self._lock is None:
            self._lock = threading.RLock()
            self._reflect()
            self.__class__ = SharedStateMachine


def _reaching(rate: float, total: int) -> int:
    """The least number of `total` calls that is at least `rate` percent of them."""
    calls = int(rate * total / 100.0)
    while calls * 100.0 < rate * total:
        calls += 1
    while (calls - 1) * 100.0 >= rate * total:
        calls -= 1
    return calls


class SharedStateMachine(StateMachine):
    """The same for several threads: every step but the question whether it is closed takes a lock."""

    __slots__ = ()

    def acquire(self, now: float) -> int:
        """As in the base class."""
        with self._lock:
            return StateMachine.acquire(self, now)

    def settle(self, era: int, duration: float, now: float, failed: bool) -> None:
        """As in the base class."""
        with self._lock:
            StateMachine.settle(self, era, duration, now, failed)

    def release(self, era: int) -> None:
        """As in the base class."""
        with self._lock:
            super().release(era)

    def open_for(self, era: int, wait: float, now: float) -> None:
        """As in the base class."""
        with self._lock:
            super().open_for(era, wait, now)

    def look(self, now: float) -> State:
        """As in the base class."""
        with self._lock:
            return super().look(now)

    def transition(self, state: State, now: float, *, wait: float | None = None) -> None:
        """As in the base class."""
        with self._lock:
            super().transition(state, now, wait=wait)

    def reset(self, now: float) -> None:
        """As in the base class."""
        with self._lock:
            super().reset(now)

    def reconfigure(self, config: CircuitBreakerConfig, now: float) -> None:
        """As in the base class."""
        with self._lock:
            super().reconfigure(config, now)

    def statistics(self, now: float) -> BreakerStatistics:
        """As in the base class."""
        with self._lock:
            return super().statistics(now)


__all__ = ["BreakerStatistics", "SharedStateMachine", "StateMachine"]
