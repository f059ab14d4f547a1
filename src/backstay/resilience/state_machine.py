"""The circuit breaker's state machine: synchronous, without I/O; every method takes `now` (monotonic seconds).

Invariants
- A permit carries the generation of the state that issued it. A result or release of an older generation changes
  nothing.
- The permit of a half-open call ends exactly once: by a result, or by its release.
- OPEN changes to HALF_OPEN, an undecided HALF_OPEN back to OPEN, at the next poll or call: no timer can be stale.
- User functions never run in the middle of a change: the wait of an opening is passed in, and listeners are called
  after the change, outside of the lock. A machine whose wait is a function returns the number of a due opening
  (`settle`, `due_opening`), and opens when `open` passes the wait.

Fast path: two numbers let a caller skip most of the machine. `pass_generation` is the generation while all calls are
permitted, else 0. `fast_success_generation` is the generation while a fast success that ends before `fast_until` can't
open the breaker, else 0: such a success only increments `succeeded`, and `_catch_up` records it in the window before
that is next read. That holds in CLOSED while the window has no failure, or enough calls: one more success can only
lower a rate then.

Rules: `CircuitBreakerStateMachine` and `CircuitBreakerMetrics` of Resilience4j 2.
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

NO_WAIT = float("-inf")  # `_open_until` of a state that doesn't wait
NO_RATE = -1.0  # as Resilience4j has it: fewer calls than `min_calls`
CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN  # a lookup on the class costs 40 ns, a hash 150
DISABLED, FORCED_OPEN, METRICS_ONLY = State.DISABLED, State.FORCED_OPEN, State.METRICS_ONLY
FORBIDDEN = frozenset(
    {
        (State.CLOSED, State.HALF_OPEN),
        (State.METRICS_ONLY, State.OPEN),
        (State.METRICS_ONLY, State.HALF_OPEN),
    }
)
PERMITTING = (CLOSED, DISABLED, METRICS_ONLY)
COUNTING_ATTEMPTS = (OPEN, HALF_OPEN, FORCED_OPEN)  # states in which attempts are counted
WITHOUT_WINDOW = (DISABLED, FORCED_OPEN)  # these count nothing, and publish only their transitions
FORCED_EVENTS = (events.StateTransition, events.BreakerReset)
_NO_LOCK = nullcontext()

Token = tuple[int, float]
"""A permitted call: the generation of its permit, and when it began (monotonic seconds)."""


class StateMachine:
    """State, window, permits and totals of one circuit breaker."""

    __slots__ = (
        "_failed_limit",
        "_failure_rate_threshold",
        "_fast_generation",
        "_half_until",
        "_limits_of",
        "_lock",
        "_needed",
        "_open_until",
        "_permits",
        "_recorded_successes",
        "_refused_before",
        "_reported_rates",
        "_schedule_poll",
        "_slow_limit",
        "_slow_rate_threshold",
        "_to_release",
        "_wait_open",
        "_window",
        "attempts",
        "config",
        "deadline_exceeded",
        "failed",
        "fast_success_generation",
        "fast_until",
        "generation",
        "has_listeners",
        "ignored",
        "name",
        "pass_generation",
        "publisher",
        "refused",
        "slow",
        "slow_failed",
        "slow_succeeded",
        "state",
        "succeeded",
    )

    def __init__(
        self, name: str, config: CircuitBreakerConfig, now: float, schedule_poll: Callable[[float], None] | None = None
    ) -> None:
        """Start in the initial state; raises `ValueError` if the wait of an initial OPEN can't be determined.

        schedule_poll: called with the seconds after which the machine should be polled.
        """
        self.name = name
        self.config = config
        self.publisher = events.Publisher(self._refresh_fast_path)
        # Totals since the start, by the outcome of the call.
        self.succeeded = self.failed = self.ignored = self.refused = self.slow_succeeded = self.slow_failed = 0
        self.deadline_exceeded = 0  # calls that the caller's own deadline ended
        # The number of state changes so far; permits of an older generation are stale.
        self.generation = 0
        # Successes that the window has recorded; the difference to `succeeded` came by the fast path.
        self._recorded_successes = 0
        self._refused_before = 0  # `refused` when the present state began
        self._schedule_poll = schedule_poll
        self._lock: Any = None  # an RLock once several threads use it
        self._reported_rates: set[type[events.Event]] = set()  # rate events of this state that were posted
        self._to_release: list[int] = []  # generations of permits that were dropped without a result
        state = config.initial_state
        self.attempts = 1 if state in COUNTING_ATTEMPTS else 0  # consecutive openings, as `wait_open` counts them
        self._window: Window = open_window(config.window, now)
        self._needed = config.needed  # calls in the window before its rates count
        self._permits = 0  # half-open calls that may still begin
        self._half_until = self._open_until = 0.0  # when HALF_OPEN and OPEN end by time
        self._failed_limit = self._slow_limit = 0  # numbers of calls that reach the rates, at `_limits_of` calls
        self._apply(config)
        wait = config.wait(1) if state is OPEN else None
        self._enter(state, self._window if state is OPEN else self._new_window(state, now), now, wait)

    # -- calls ----------------------------------------------------------------------------------------------------

    def acquire(self, now: float, wait: float | None = None) -> Token | CallNotPermitted:
        """Return a permit for one call, to be passed to `settle` or `release`; or the refusal.

        wait: seconds of the opening that `due_opening` returned.
        """
        lock = self._lock
        if lock is not None:
            lock.acquire()
        try:
            found: Token | CallNotPermitted
            left = self._open_until - now
            if left < 0.0 and (self.pass_generation or self._may_try(now, wait)):
                found = self.generation, now
            else:
                if left < 0.0:
                    left = max(0.0, self._open_until - now)  # the change by time may have opened it again
                self.refused += 1
                if self.has_listeners:
                    self._post(events.NotPermitted)
                found = CallNotPermitted.__new__(CallNotPermitted, self.name, left, self.state)  # sets its arguments
        finally:
            if lock is not None:
                lock.release()
        if self.has_listeners and self.publisher.pending:
            try:
                self.publisher.deliver(self.name)
            except BaseException:  # a listener was interrupted: the call isn't made
                if isinstance(found, tuple):
                    self.release(found[0])
                raise
        return found

    def _may_try(self, now: float, wait: float | None) -> bool:
        """Take a permit of OPEN or HALF_OPEN if there is one, after the change of state that is due by time."""
        if self.state is OPEN:
            self._change_state(HALF_OPEN, now)
        elif self.state is HALF_OPEN and now > self._half_until:
            self._end_half_open(now, wait)
            if self.pass_generation or (self.state is OPEN and now > self._open_until):
                return bool(self.pass_generation) or self._may_try(now, wait)
        while self._to_release:
            self._release(self._to_release.pop())
        if self._permits > 0:
            self._permits -= 1
            return True
        return False

    def settle(
        self,
        generation: int,
        duration: float,
        now: float,
        failed: bool,
        error: BaseException | None = None,
        open_for: float | None = None,
    ) -> int:
        """Record the end of a call after `duration` seconds; it counts if its generation is still the current one.

        error: what it raised, for the listeners. open_for: seconds for which the outcome requires the breaker to open.
        Returns the number of the opening that is due and needs its wait (`open`), or 0.
        """
        lock = self._lock
        if lock is not None:
            lock.acquire()
        try:
            if self.has_listeners:
                self._post_outcome(duration, error, failed)
            due = self._count(generation, duration, now, failed)
        finally:
            if lock is not None:
                lock.release()
        if open_for is not None:
            self._open_for(generation, open_for, now)
        if self.publisher.pending:
            self.publisher.deliver(self.name)
        return due

    def _count(self, generation: int, duration: float, now: float, failed: bool) -> int:
        """Count an outcome and change the state by it; return the number of the opening that is due, or 0."""
        if self.succeeded != self._recorded_successes:
            self._catch_up()
        slow = duration > self.slow
        if failed:
            self.failed += 1
            outcome = FAILED | SLOW if slow else FAILED
            if slow:
                self.slow_failed += 1
        else:
            self._recorded_successes = self.succeeded = self.succeeded + 1
            outcome = SLOW if slow else 0
            if slow:
                self.slow_succeeded += 1
        if generation != self.generation and not self.config.parity:
            return 0
        window = self._window
        window.record(outcome, now)
        total = window.total
        if total >= self._needed:
            if total != self._limits_of:
                self._set_limits(total)
            if window.failed >= self._failed_limit or window.slow >= self._slow_limit:
                self.fast_success_generation = 0
                return self._open_by_rates(window, now)
            if self.state is HALF_OPEN:
                self._change_state(CLOSED, now)
                return 0
            self.fast_success_generation = self._fast_generation
        else:
            self.fast_success_generation = self._fast_generation if not (window.failed or window.slow) else 0
        self.fast_until = window.ends
        return 0

    def ignore(
        self, generation: int, duration: float, now: float, error: BaseException, open_for: float | None
    ) -> None:
        """Record a call that ended with an ignored error; a half-open permit is released."""
        with self._lock or _NO_LOCK:
            if self.has_listeners:
                self._post(events.CallIgnored, duration=duration, error=error)
            self.ignored += 1
            self._release(generation)
        if open_for is not None:
            self._open_for(generation, open_for, now)
        self.publisher.deliver(self.name)

    def release(self, generation: int, *, deadline_exceeded: bool = False) -> None:
        """Release the permit of a call that proves nothing about the dependency.

        deadline_exceeded: the caller's deadline ended it.
        """
        with self._lock or _NO_LOCK:
            self.deadline_exceeded += deadline_exceeded
            self._release(generation)

    def release_later(self, generation: int) -> None:
        """Release a permit at the next call that needs one. For finalizers, which may run under the lock."""
        self._to_release.append(generation)

    def _release(self, generation: int) -> None:
        if self.state is HALF_OPEN and (generation == self.generation or self.config.parity):
            self._permits += 1

    def open(self, number: int, wait: float, now: float) -> None:
        """Open for `wait` seconds, as opening `number` of `settle`, unless the state has changed meanwhile."""
        with self._lock or _NO_LOCK:
            window = self._window
            reached = window.failed >= self._failed_limit or window.slow >= self._slow_limit
            if self.state in (CLOSED, HALF_OPEN) and self.attempts + 1 == number and reached:
                self._change_state(OPEN, now, wait, number)
        self.publisher.deliver(self.name)

    def due_opening(self, now: float) -> int:
        """Return the number of the opening that ends an undecided HALF_OPEN at `now` if it needs its wait, else 0."""
        if self.state is HALF_OPEN and now > self._half_until and self._wait_open is None:
            return self.attempts + 1 if self.config.half_open.then is OPEN else 0
        return 0

    def _open_for(self, generation: int, wait: float, now: float) -> None:
        """Open for `wait` seconds because an outcome required it; only from CLOSED, and only by a current call."""
        with self._lock or _NO_LOCK:
            if self.state is CLOSED and (generation == self.generation or self.config.parity):
                self._change_state(OPEN, now, wait)

    def _catch_up(self) -> None:
        """Record in the window the successes that only the fast path has counted."""
        self._window.credit(self.succeeded - self._recorded_successes)
        self._recorded_successes = self.succeeded

    def _set_limits(self, total: int) -> None:
        """Set the numbers of failed and of slow calls among `total` that reach the rates."""
        self._limits_of = total
        self._failed_limit = _least_count(self._failure_rate_threshold, total)
        self._slow_limit = _least_count(self._slow_rate_threshold, total)

    def _open_by_rates(self, window: Window, now: float) -> int:
        """Open, since a rate is reached; return the number of the opening if it needs its wait, else 0."""
        state, total = self.state, window.total
        if state is OPEN:
            return 0
        if state is not HALF_OPEN:
            if window.failed * 100.0 >= self._failure_rate_threshold * total:
                self._post_rate_exceeded(events.FailureRateExceeded, window.failed * 100.0 / total)
            if window.slow * 100.0 >= self._slow_rate_threshold * total:
                self._post_rate_exceeded(events.SlowCallRateExceeded, window.slow * 100.0 / total)
        if state is METRICS_ONLY:
            return 0
        number = self.attempts + 1
        if self._wait_open is None:
            return number
        self._change_state(OPEN, now, self._wait_open, number)
        return 0

    def _post_rate_exceeded(self, event: type[events.Event], rate: float) -> None:
        if event not in self._reported_rates:  # once per state; only METRICS_ONLY lasts long enough for it to matter
            self._reported_rates.add(event)
            self._post(event, rate=rate)

    # -- transitions ----------------------------------------------------------------------------------------------

    def poll(self, now: float, wait: float | None = None) -> State:
        """Return the state at `now`, after the changes that are due by time alone.

        wait: seconds of the opening that `due_opening` returned.
        """
        with self._lock or _NO_LOCK:
            state = self._poll(now, wait)
        self.publisher.deliver(self.name)
        return state

    def _poll(self, now: float, wait: float | None) -> State:
        if self.state is OPEN and self.config.auto_half_open and now > self._open_until:
            self._change_state(HALF_OPEN, now)
        elif self.state is HALF_OPEN and now > self._half_until:
            self._end_half_open(now, wait)
        return self.state

    def _end_half_open(self, now: float, wait: float | None) -> None:
        """End a HALF_OPEN that stayed undecided, as of the moment at which its time was over."""
        then, wait = self.config.half_open.then, self._wait_open if wait is None else wait
        if then is OPEN and wait is None:  # its function failed, or was not called yet: the next poll tries again
            return
        end, self._half_until = self._half_until, float("inf")
        self._change_state(then, end, wait if then is OPEN else None, self.attempts + 1)
        if self.state is CLOSED:
            self._window.advance(now)

    def transition(self, state: State, now: float, *, wait: float | None = None, counted: bool = False) -> None:
        """Change to `state` manually; OPEN needs its `wait` in seconds, and `counted` makes it a consecutive opening.

        Raises `IllegalTransition` and changes nothing if the transition isn't allowed.
        """
        with self._lock or _NO_LOCK:
            if (self.state, state) in FORBIDDEN:
                raise IllegalTransition(
                    f"CircuitBreaker '{self.name}' can't go from {self.state.value} to {state.value}"
                )
            self._change_state(state, now, wait, self.attempts + 1 if counted or state is FORCED_OPEN else None)
        self.publisher.deliver(self.name)

    def reset(self, now: float) -> None:
        """Start again in CLOSED with an empty window."""
        with self._lock or _NO_LOCK:
            old = self.state
            self._catch_up()
            self.attempts = 0
            self._refused_before = self.refused
            self._enter(CLOSED, open_window(self.config.window, now), now)
            if old is not CLOSED:
                self._post(events.StateTransition, from_state=old, to_state=CLOSED)
            self._post(events.BreakerReset)
        self.publisher.deliver(self.name)

    def reconfigure(self, config: CircuitBreakerConfig, now: float) -> None:
        """Replace the configuration; recorded outcomes stay, as many as the new window holds."""
        with self._lock or _NO_LOCK:
            self._catch_up()
            old = self.config
            self._apply(config)
            if self.state in (CLOSED, OPEN, METRICS_ONLY) and old.window != config.window:
                self._window = self._window.resized(config.window, now)
            if self.state is HALF_OPEN:
                limit = config.half_open.max_wait
                self._half_until = now + limit if limit else float("inf")
            else:
                self._needed = config.needed
            self._refresh_fast_path()
            self._post(events.ConfigChanged)
        self.publisher.deliver(self.name)

    def _apply(self, config: CircuitBreakerConfig) -> None:
        self.config = config
        self.slow = config.slow.seconds
        self._failure_rate_threshold = config.failure_rate
        self._slow_rate_threshold = config.slow.rate
        self._limits_of = -1
        self._wait_open = None if callable(config.wait_open) else opening(config.wait_open)  # None: a function

    def _change_state(self, new: State, now: float, wait: float | None = None, number: int | None = None) -> None:
        """Change the state; OPEN for `wait` seconds. number: which consecutive opening this is, if it counts as one."""
        old = self.state
        if self.succeeded != self._recorded_successes:
            self._catch_up()
        if new in PERMITTING:
            self.attempts = 0
        elif number is not None and new is not HALF_OPEN:
            self.attempts = number
        if new is OPEN:
            window = self._window  # its statistics show what opened the breaker
        else:
            window = self._new_window(new, now)
            self._refused_before = self.refused
        self._enter(new, window, now, wait)
        if old is not new:
            self._post(events.StateTransition, from_state=old, to_state=new)

    def _new_window(self, state: State, now: float) -> Window:
        if state is HALF_OPEN:
            return CountWindow(self.config.half_open.calls)
        return NoWindow() if state in WITHOUT_WINDOW else open_window(self.config.window, now)

    def _enter(self, state: State, window: Window, now: float, wait: float | None = None) -> None:
        config = self.config
        self.state = state
        self._window = window
        self.generation += 1  # permits issued before are stale from here on
        self._permits = config.half_open.calls if state is HALF_OPEN else 0
        if state is not OPEN:  # OPEN keeps the window that opened it, and its required calls
            self._needed = min(config.min_calls, config.half_open.calls) if state is HALF_OPEN else config.needed
        assert state is not OPEN or wait is not None
        self._open_until = now + (wait or 0.0) if state is OPEN else NO_WAIT
        limit = config.half_open.max_wait
        self._half_until = now + limit if state is HALF_OPEN and limit else float("inf")
        self._reported_rates.clear()
        self._to_release.clear()
        self._refresh_fast_path()
        if self._schedule_poll is not None and (
            (state is HALF_OPEN and limit) or (state is OPEN and config.auto_half_open)
        ):
            self._schedule_poll((self._half_until if state is HALF_OPEN else self._open_until) - now)

    # -- listeners, flags, numbers --------------------------------------------------------------------------------

    def _post(self, event: type[events.Event], **details: object) -> None:
        """Queue an event for delivery, unless the present state publishes none."""
        if self.has_listeners and (self.state not in WITHOUT_WINDOW or event in FORCED_EVENTS):
            self.publisher.post(event, details)

    def _post_outcome(self, duration: float, error: BaseException | None, failed: bool) -> None:
        if failed:
            self._post(events.CallFailed, duration=duration, error=error)
        else:
            self._post(events.CallSucceeded, duration=duration)

    def _refresh_fast_path(self) -> None:
        """Recompute the numbers of the fast path (see the module)."""
        config, window = self.config, self._window
        free = self.state in PERMITTING
        unseen = config.fail_result is None and config.open_if is None
        self.has_listeners = self.publisher.has_listeners
        unseen = unseen and not self.publisher.wants(events.CallSucceeded)
        self.pass_generation = self.generation if free else 0
        self._fast_generation = self.generation if self.state is CLOSED and unseen and self._lock is None else 0
        self.fast_success_generation = (
            self._fast_generation if window.total >= self._needed or not (window.failed or window.slow) else 0
        )
        self.fast_until = window.ends

    def statistics(self, now: float) -> BreakerStatistics:
        """Return a snapshot of state, rates and counts."""
        with self._lock or _NO_LOCK:
            found = self._statistics(now)
        self.publisher.deliver(self.name)
        return found

    def _statistics(self, now: float) -> BreakerStatistics:
        state = self._poll(now, None)
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
            deadline_exceeded_total=self.deadline_exceeded,
        )

    def make_thread_safe(self) -> None:
        """Take a lock in every step from now on, so that several threads may use it."""
        if self._lock is None:
            self._lock = threading.RLock()  # a finalizer that runs in the middle of a step may take it again
            self._refresh_fast_path()


def _least_count(rate: float, total: int) -> int:
    """Return the least number of calls that is at least `rate` percent of `total`."""
    calls = int(rate * total / 100.0)
    while calls * 100.0 < rate * total:
        calls += 1
    while (calls - 1) * 100.0 >= rate * total:
        calls -= 1
    return calls


__all__ = ["StateMachine", "Token"]
