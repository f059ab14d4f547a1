"""The circuit breaker's state machine: synchronous, without I/O, every method takes `now` (monotonic seconds).

Invariants
- A permit is the era (a number) of the state that gave it. A result or release of an older era decides nothing.
- A probe's permit ends exactly once: by a result, or given back.
- OPEN turns to HALF_OPEN, and an undecided HALF_OPEN back to OPEN, at the next look: no timer can be stale.
- No function of a user runs in the middle of a change: how long to stay open is handed in, and the listeners are called
  after the change, outside of the lock. A machine whose wait is a function says which opening is due (`settle`,
  `expiring`), and opens when it is given the wait.

Two numbers let a caller skip most of it. `free` is the era while a permit needs no question, else 0. `quiet` is the era
while a fast success that ends before `until` can't open the breaker, else 0: such a success is only counted in
`succeeded`, and the window is told of it before it is next read (`_catch_up`). That holds in CLOSED while no failure is
in the window, or enough calls are: one more success can only lower a rate then.

Source of the rules: `CircuitBreakerStateMachine` and `CircuitBreakerMetrics` of Resilience4j 2.
"""

import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from backstay.resilience import events
from backstay.resilience.config import CircuitBreakerConfig, opening
from backstay.resilience.errors import CallNotPermitted, IllegalTransition
from backstay.resilience.events import State
from backstay.resilience.statistics import BreakerStatistics
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
_NO_LOCK = nullcontext()

Token = tuple[int, float]
"""An admitted call: the era of its permit, and when it began (monotonic seconds)."""


class StateMachine:
    """State, window, permits and totals of one circuit breaker."""

    __slots__ = (
        "_abandoned",
        "_alarm",
        "_exceeded",
        "_failed_limit",
        "_failing",
        "_half_until",
        "_limits_of",
        "_lock",
        "_needed",
        "_open_until",
        "_permits",
        "_quiet_era",
        "_refused_before",
        "_seen",
        "_slow_limit",
        "_slowing",
        "_wait_open",
        "_window",
        "attempts",
        "config",
        "era",
        "failed",
        "free",
        "heard",
        "ignored",
        "impatient",
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
    )

    def __init__(
        self, name: str, config: CircuitBreakerConfig, now: float, alarm: Callable[[float], None] | None = None
    ) -> None:
        """A machine in its initial state; raises `ValueError` if the wait of an initial OPEN can't be told."""
        self.name = name
        self.config = config
        self.publisher = events.Publisher(self._reflect)
        self.succeeded = self.failed = self.ignored = self.refused = self.slow_succeeded = self.slow_failed = 0
        self.era = self._seen = self._refused_before = self.impatient = 0
        self._alarm = alarm  # called with the seconds after which a look is due
        self._lock: Any = None  # an RLock once several threads use it
        self._exceeded: set[type[events.Event]] = set()
        self._abandoned: list[int] = []  # eras of permits that were dropped without a word
        state = config.initial_state
        self.attempts = 1 if state in COUNTING else 0
        self._window: Window = open_window(config.window, now)
        self._needed = config.needed
        self._permits = 0
        self._half_until = self._open_until = 0.0
        self._failed_limit = self._slow_limit = 0
        self._adopt(config)
        wait = config.wait(1) if state is OPEN else None
        self._enter(state, self._window if state is OPEN else self._fresh(state, now), now, wait)

    # -- calls ----------------------------------------------------------------------------------------------------

    def acquire(self, now: float, wait: float | None = None) -> Token | CallNotPermitted:
        """A permit for one call, its era to be handed to `settle` or `release`; or the refusal.

        `wait`: the seconds of the opening that `expiring` has named.
        """
        lock = self._lock
        if lock is not None:
            lock.acquire()
        try:
            found: Token | CallNotPermitted
            left = self._open_until - now
            if left < 0.0 and (self.free or self._may_try(now, wait)):
                found = self.era, now
            else:
                if left < 0.0:
                    left = max(0.0, self._open_until - now)  # moving on may have opened it again
                self.refused += 1
                if self.heard:
                    self._note(events.NotPermitted)
                found = CallNotPermitted.__new__(CallNotPermitted, self.name, left, self.state)  # sets its arguments
        finally:
            if lock is not None:
                lock.release()
        if self.heard and self.publisher.pending:
            try:
                self.publisher.deliver(self.name)
            except BaseException:  # a listener was interrupted: the call isn't made
                if isinstance(found, tuple):
                    self.release(found[0])
                raise
        return found

    def _may_try(self, now: float, wait: float | None) -> bool:
        """Whether a state that doesn't let all pass lets this call pass, after moving on if its time has come."""
        if self.state is OPEN:
            self._go(HALF_OPEN, now)
        elif self.state is HALF_OPEN and now > self._half_until:
            self._give_up(now, wait)
            if self.free or (self.state is OPEN and now > self._open_until):
                return bool(self.free) or self._may_try(now, wait)
        while self._abandoned:
            self._release(self._abandoned.pop())
        if self._permits > 0:
            self._permits -= 1
            return True
        return False

    def settle(
        self,
        era: int,
        duration: float,
        now: float,
        failed: bool,
        error: BaseException | None = None,
        open_for: float | None = None,
    ) -> int:
        """The call ended after `duration` seconds; it counts if its era is still the current one.

        error: what it raised, for the listeners. open_for: seconds that the outcome asks the breaker to be open for.
        Returns the number of the opening that is due and needs its wait (`open`), or 0.
        """
        lock = self._lock
        if lock is not None:
            lock.acquire()
        try:
            if self.heard:
                self._note_ending(duration, error, failed)
            due = self._count(era, duration, now, failed)
        finally:
            if lock is not None:
                lock.release()
        if open_for is not None:
            self._open_for(era, open_for, now)
        if self.publisher.pending:
            self.publisher.deliver(self.name)
        return due

    def _count(self, era: int, duration: float, now: float, failed: bool) -> int:
        """Count an outcome and decide by it; the number of the opening that is due, or 0."""
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
            return 0
        window = self._window
        window.record(outcome, now)
        total = window.total
        if total >= self._needed:
            if total != self._limits_of:
                self._set_limits(total)
            if window.failed >= self._failed_limit or window.slow >= self._slow_limit:
                self.quiet = 0
                return self._exceeded_rates(window, now)
            if self.state is HALF_OPEN:
                self._go(CLOSED, now)
                return 0
            self.quiet = self._quiet_era
        else:
            self.quiet = self._quiet_era if not (window.failed or window.slow) else 0
        self.until = window.ends
        return 0

    def ignore(self, era: int, duration: float, now: float, error: BaseException, open_for: float | None) -> None:
        """The call ended with an error that counts as nothing: a probe's permit goes back."""
        with self._lock or _NO_LOCK:
            if self.heard:
                self._note(events.CallIgnored, duration=duration, error=error)
            self.ignored += 1
            self._release(era)
        if open_for is not None:
            self._open_for(era, open_for, now)
        self.publisher.deliver(self.name)

    def release(self, era: int, *, impatient: bool = False) -> None:
        """The call said nothing about the dependency: a probe's permit goes back. impatient: its caller had no time."""
        with self._lock or _NO_LOCK:
            self.impatient += impatient
            self._release(era)

    def abandon(self, era: int) -> None:
        """A permit was dropped without a word: it goes back at the next try. For finalizers, which may run anywhere."""
        self._abandoned.append(era)

    def _release(self, era: int) -> None:
        if self.state is HALF_OPEN and (era == self.era or self.config.parity):
            self._permits += 1

    def open(self, number: int, wait: float, now: float) -> None:
        """Open for `wait` seconds by the opening that `settle` has named, unless others have moved on meanwhile."""
        with self._lock or _NO_LOCK:
            window = self._window
            reached = window.failed >= self._failed_limit or window.slow >= self._slow_limit
            if self.state in (CLOSED, HALF_OPEN) and self.attempts + 1 == number and reached:
                self._go(OPEN, now, wait, number)
        self.publisher.deliver(self.name)

    def expiring(self, now: float) -> int:
        """The number of the opening by which an undecided visit ends at `now`, if it needs its wait; else 0."""
        if self.state is HALF_OPEN and now > self._half_until and self._wait_open is None:
            return self.attempts + 1 if self.config.half_open.then is OPEN else 0
        return 0

    def _open_for(self, era: int, wait: float, now: float) -> None:
        """A call of this era asked for the breaker to be open for `wait` seconds; granted only while closed."""
        with self._lock or _NO_LOCK:
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

    def _exceeded_rates(self, window: Window, now: float) -> int:
        """The window holds too many failures or slow calls. Returns the number of the opening if it needs its wait."""
        state, total = self.state, window.total
        if state is OPEN:
            return 0
        if state is not HALF_OPEN:
            if window.failed * 100.0 >= self._failing * total:
                self._exceed(events.FailureRateExceeded, window.failed * 100.0 / total)
            if window.slow * 100.0 >= self._slowing * total:
                self._exceed(events.SlowCallRateExceeded, window.slow * 100.0 / total)
        if state is METRICS_ONLY:
            return 0
        number = self.attempts + 1
        if self._wait_open is None:
            return number
        self._go(OPEN, now, self._wait_open, number)
        return 0

    def _exceed(self, event: type[events.Event], rate: float) -> None:
        if event not in self._exceeded:  # once a stay; only METRICS_ONLY stays long enough to notice
            self._exceeded.add(event)
            self._note(event, rate=rate)

    # -- transitions ----------------------------------------------------------------------------------------------

    def look(self, now: float, wait: float | None = None) -> State:
        """The state at `now`, after what needs no call: the end of an automatic wait, or of an undecided visit.

        `wait`: the seconds of the opening that `expiring` has named.
        """
        with self._lock or _NO_LOCK:
            state = self._look(now, wait)
        self.publisher.deliver(self.name)
        return state

    def _look(self, now: float, wait: float | None) -> State:
        if self.state is OPEN and self.config.auto_half_open and now > self._open_until:
            self._go(HALF_OPEN, now)
        elif self.state is HALF_OPEN and now > self._half_until:
            self._give_up(now, wait)
        return self.state

    def _give_up(self, now: float, wait: float | None) -> None:
        """A half-open visit stayed undecided: go on as if it had been looked at at the very end of its time."""
        then, wait = self.config.half_open.then, self._wait_open if wait is None else wait
        if then is OPEN and wait is None:  # its function has failed, or has not been asked yet: the next look goes on
            return
        end, self._half_until = self._half_until, float("inf")
        self._go(then, end, wait if then is OPEN else None, self.attempts + 1)
        if self.state is CLOSED:
            self._window.advance(now)

    def transition(self, state: State, now: float, *, wait: float | None = None, counted: bool = False) -> None:
        """Go to `state` by hand; OPEN needs its `wait` in seconds, and `counted` makes it an opening in a row.

        Raises `IllegalTransition`, and changes nothing then.
        """
        with self._lock or _NO_LOCK:
            if (self.state, state) in FORBIDDEN:
                raise IllegalTransition(
                    f"CircuitBreaker '{self.name}' can't go from {self.state.value} to {state.value}"
                )
            self._go(state, now, wait, self.attempts + 1 if counted or state is FORCED_OPEN else None)
        self.publisher.deliver(self.name)

    def reset(self, now: float) -> None:
        """A fresh closed state, whatever was before."""
        with self._lock or _NO_LOCK:
            old = self.state
            self._catch_up()
            self.attempts = 0
            self._refused_before = self.refused
            self._enter(CLOSED, open_window(self.config.window, now), now)
            if old is not CLOSED:
                self._note(events.StateTransition, from_state=old, to_state=CLOSED)
            self._note(events.BreakerReset)
        self.publisher.deliver(self.name)

    def reconfigure(self, config: CircuitBreakerConfig, now: float) -> None:
        """Use `config` from now on; outcomes already counted stay, as many as the new window holds."""
        with self._lock or _NO_LOCK:
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
            self._reflect()
            self._note(events.ConfigChanged)
        self.publisher.deliver(self.name)

    def _adopt(self, config: CircuitBreakerConfig) -> None:
        self.config = config
        self.slow = config.slow.seconds
        self._failing = config.failure_rate
        self._slowing = config.slow.rate
        self._limits_of = -1
        self._wait_open = None if callable(config.wait_open) else opening(config.wait_open)  # None: is to be asked for

    def _go(self, new: State, now: float, wait: float | None = None, number: int | None = None) -> None:
        """Go to `new`; OPEN for `wait` seconds. `number`: which opening in a row that is, if it counts as one."""
        old = self.state
        if self.succeeded != self._seen:
            self._catch_up()
        if new in PASSING:
            self.attempts = 0
        elif number is not None and new is not HALF_OPEN:
            self.attempts = number
        if new is OPEN:
            window = self._window  # an open breaker shows what opened it, and its refusals
        else:
            window = self._fresh(new, now)
            self._refused_before = self.refused
        self._enter(new, window, now, wait)
        if old is not new:
            self._note(events.StateTransition, from_state=old, to_state=new)

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
        assert state is not OPEN or wait is not None
        self._open_until = now + (wait or 0.0) if state is OPEN else PASSED
        limit = config.half_open.max_wait
        self._half_until = now + limit if state is HALF_OPEN and limit else float("inf")
        self._exceeded.clear()
        self._abandoned.clear()
        self._reflect()
        if self._alarm is not None and ((state is HALF_OPEN and limit) or (state is OPEN and config.auto_half_open)):
            self._alarm((self._half_until if state is HALF_OPEN else self._open_until) - now)

    # -- listeners, flags, numbers --------------------------------------------------------------------------------

    def _note(self, event: type[events.Event], **details: object) -> None:
        """Remember an event for its delivery, unless the present state is one of those that publish none."""
        if self.heard and (self.state not in UNCOUNTED or event in FORCED_EVENTS):
            self.publisher.post(event, details)

    def _note_ending(self, duration: float, error: BaseException | None, failed: bool) -> None:
        if failed:
            self._note(events.CallFailed, duration=duration, error=error)
        else:
            self._note(events.CallSucceeded, duration=duration)

    def _reflect(self) -> None:
        """Set what lets callers skip this machine."""
        config, window = self.config, self._window
        free = self.state in PASSING
        unseen = config.fail_result is None and config.open_if is None
        self.heard = self.publisher.heard
        unseen = unseen and not self.publisher.wants(events.CallSucceeded)
        self.free = self.era if free else 0
        self._quiet_era = self.era if self.state is CLOSED and unseen and self._lock is None else 0
        self.quiet = self._quiet_era if window.total >= self._needed or not (window.failed or window.slow) else 0
        self.until = window.ends

    def statistics(self, now: float) -> BreakerStatistics:
        """A snapshot of state, rates and counts."""
        with self._lock or _NO_LOCK:
            found = self._statistics(now)
        self.publisher.deliver(self.name)
        return found

    def _statistics(self, now: float) -> BreakerStatistics:
        state = self._look(now, None)
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
            impatient_total=self.impatient,
        )

    def share(self) -> None:
        """Be used by several threads from now on."""
        if self._lock is None:
            self._lock = threading.RLock()  # a finalizer that runs in the middle of a step may take it again
            self._reflect()


def _reaching(rate: float, total: int) -> int:
    """The least number of `total` calls that is at least `rate` percent of them."""
    calls = int(rate * total / 100.0)
    while calls * 100.0 < rate * total:
        calls += 1
    while (calls - 1) * 100.0 >= rate * total:
        calls -= 1
    return calls


__all__ = ["StateMachine", "Token"]
