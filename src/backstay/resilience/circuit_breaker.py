"""The circuit breaker: permits for calls, and the verdict on each outcome. States and counts are in `state_machine`."""

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.resilience import events
from backstay.resilience.admission import Admission, AdmittedBlock
from backstay.resilience.config import BreakerOptions, CircuitBreakerConfig, opening
from backstay.resilience.durations import Seconds
from backstay.resilience.errors import CallNotPermitted, DeadlineTimeout
from backstay.resilience.events import State
from backstay.resilience.foreign import ask, report
from backstay.resilience.policy import Block
from backstay.resilience.state_machine import StateMachine, Token
from backstay.resilience.statistics import BreakerStatistics
from backstay.resilience.verdict import Verdict, verdict_on

E = TypeVar("E", bound=events.Event)

FAILURE, IGNORED, GIVEN_BACK, SUCCESS = Verdict
HALF_OPEN = State.HALF_OPEN
MAX_VERDICTS = 200  # exception types whose verdict is remembered


class BreakerArguments(BreakerOptions, total=False):
    """Arguments of a circuit breaker besides its name."""

    config: CircuitBreakerConfig
    threads: bool
    clock: Clock


class Permit:
    """Permission for one call. Report its outcome exactly once; leaving the `with` block without reporting releases it.

    A permit that is dropped without a report is released at the next call that needs one.
    """

    __slots__ = ("_breaker", "_generation", "_reported", "_started")

    def __init__(self, breaker: "CircuitBreaker") -> None:
        self._reported = True  # until there is a permit to report on
        self._breaker = breaker
        self._generation, self._started = breaker.admitted_plain()
        self._reported = False

    def restart(self) -> None:
        """Measure the duration of the call from now on, without the time spent before it began."""
        self._started = self._breaker.now()

    @property
    def is_slow(self) -> bool:
        """True if the call has already exceeded the breaker's slow-call threshold."""
        duration: float = self._breaker.now() - self._started
        return duration > self._breaker.machine.slow

    def success(self, result: object = None) -> None:
        """Report a call that returned `result`."""
        self._settle(None, result)

    def failure(self, error: BaseException) -> None:
        """Report a call that raised `error`; its type decides whether it counts as a failure (see `verdict`)."""
        self._settle(error, None)

    def release(self) -> None:
        """Release the permit: the call was not made, or proves nothing about the dependency."""
        if not self._reported:
            self._reported = True
            self._breaker.machine.release(self._generation)

    def _settle(self, error: BaseException | None, result: object) -> None:
        if not self._reported:
            self._reported = True
            self._breaker.settle((self._generation, self._started), error, result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.release()
        else:
            self.failure(error)

    def __del__(self) -> None:
        if not self._reported:
            self._breaker.machine.release_later(self._generation)


class _PermitBlock(AdmittedBlock):
    """A guarded block: its normal end is a success, an exception a failure, unless the permit was reported on."""

    def __init__(self, breaker: "CircuitBreaker") -> None:
        super().__init__(breaker)
        self._breaker = breaker

    async def enter(self) -> Permit:
        await super().enter()
        return self._permit()

    def enter_plain(self) -> Permit:
        super().enter_plain()
        return self._permit()

    def leave_plain(self, error: BaseException | None) -> None:
        permit: Permit = self._token
        if error is None:
            permit.success()
        else:
            permit.failure(error)

    def _permit(self) -> Permit:
        generation, started = self._token
        self._token = permit = Permit.__new__(Permit)
        permit._breaker, permit._generation, permit._started, permit._reported = (
            self._breaker,
            generation,
            started,
            False,
        )
        return permit


class CircuitBreaker(Admission):
    """Refuse calls to a dependency that fails or is slow, and probe it again after `wait_open`.

    name: shown in events, metrics and rejections.
    config: a whole configuration; the keyword arguments are the fields of `CircuitBreakerConfig` and win over it.
    threads: take a lock in every step, for use by several threads. A guarded plain function does so by itself.
    """

    def __init__(
        self,
        name: str,
        config: CircuitBreakerConfig | None = None,
        *,
        threads: bool = False,
        clock: Clock = SYSTEM,
        **options: Unpack[BreakerOptions],
    ) -> None:
        self.name = name
        self.clock = clock
        self.now = clock.monotonic
        self._config = self._changed(config or CircuitBreakerConfig(), options)
        self._verdicts: dict[type[BaseException] | type[None], Verdict] = {}
        self.machine = StateMachine(name, self._config, self.now(), _schedule_poll(weakref.ref(self)))
        if threads:
            self.machine.make_thread_safe()

    # -- guarding -------------------------------------------------------------------------------------------------

    def make_thread_safe(self) -> None:
        """Take a lock in every step from now on, so that several threads may use it."""
        self.machine.make_thread_safe()

    def block(self) -> Block:
        """Guard a block: its normal end is a success, an exception a failure, unless its permit was reported on."""
        return _PermitBlock(self)

    def permit(self) -> Permit:
        """Return a permit whose outcome the caller reports; raises `CallNotPermitted`."""
        return Permit(self)

    def acquire(self) -> Token | CallNotPermitted:
        """Return a permit, or the refusal."""
        machine, started = self.machine, self.now()
        wait = self._wait_of_due_opening(started) if machine.state is HALF_OPEN else None
        return machine.acquire(started, wait)

    def functions(self) -> tuple[Callable[[], Any], Callable[..., None]]:
        """Return `acquire` and `settle` with the fast path of a closed breaker (see `state_machine`)."""
        machine, now, judge = self.machine, self.now, self.settle
        admit, wait_of_due_opening = machine.acquire, self._wait_of_due_opening

        def acquire() -> Token | CallNotPermitted:
            generation, started = machine.pass_generation, now()
            if generation:
                return generation, started
            return admit(started, wait_of_due_opening(started) if machine.state is HALF_OPEN else None)

        def settle(token: Any, error: BaseException | None, result: object = None) -> None:
            if error is None:
                generation, started = token
                ended = now()
                if (
                    generation == machine.fast_success_generation
                    and ended - started <= machine.slow
                    and ended < machine.fast_until
                ):
                    machine.succeeded += 1
                    return
            judge(token, error, result)

        return acquire, settle

    def settle(self, token: Any, error: BaseException | None, result: object = None) -> None:
        """Record the outcome of a call: `error`, or `result`."""
        machine, ended = self.machine, self.now()
        generation, started = token
        duration = ended - started
        verdict, shown, open_for = self._verdicts.get(type(error)), error, None
        if verdict is None:  # foreign code first
            try:
                verdict, shown, open_for = self._judge(error, result, duration)
            except BaseException:
                machine.release(generation)
                raise
        if verdict is FAILURE or verdict is SUCCESS:
            number = machine.settle(generation, duration, ended, verdict is FAILURE, shown, open_for)
            if number:
                self._open(generation, number, ended, error)
        elif verdict is GIVEN_BACK:
            machine.release(generation, deadline_exceeded=isinstance(error, DeadlineTimeout))
        else:
            assert error is not None
            machine.ignore(generation, duration, ended, error, open_for)

    def _judge(
        self, error: BaseException | None, result: object, duration: float
    ) -> tuple[Verdict, BaseException | None, float | None]:
        """Return the verdict on an outcome, the error to report, and the seconds to open for if it requires that."""
        config = self._config
        if error is not None:
            verdict = self._verdict_on(error, duration)
            if config.open_if is None or verdict is GIVEN_BACK:
                return verdict, error, None
            return verdict, error, self._requested_wait(error)
        if (
            config.fail_result is not None
            and result is not None
            and ask(config.fail_result, "fail_result", False, result)
        ):
            return FAILURE, events.ResultRecordedAsFailure(result), None
        if config.open_if is not None and result is not None:
            return SUCCESS, None, self._requested_wait(result)
        return SUCCESS, None, None

    def _verdict_on(self, error: BaseException, duration: float) -> Verdict:
        """Return the verdict on an error; cached by its type where nothing else decides."""
        config = self._config
        verdict = verdict_on(
            error,
            record=config.record,
            ignore=config.ignore,
            record_if=config.record_if,
            ignore_if=config.ignore_if,
            slow=duration > self.machine.slow,
        )
        by_type = config.ignore_if is None and config.record_if is None and config.open_if is None
        if (
            by_type
            and len(self._verdicts) < MAX_VERDICTS
            and not isinstance(error, (BaseExceptionGroup, DeadlineTimeout))
        ):
            self._verdicts[type(error)] = verdict
        return verdict

    def _requested_wait(self, outcome: object) -> float | None:
        """Return the seconds for which `open_if` requires the breaker to open."""
        open_if = self._config.open_if
        assert open_if is not None

        def asked() -> float | None:
            wait = open_if(outcome)
            return None if wait is None else opening(wait)

        found: float | None = ask(asked, f"open_if of CircuitBreaker '{self.name}'", None, about=outcome)
        return found

    def _open(self, generation: int, number: int, now: float, error: BaseException | None) -> None:
        """Open for the wait that a function returns; if it raises, the state stays and the permit is released."""
        try:
            wait = self._config.wait(number)
        except Exception as failure:  # noqa: BLE001 - reported
            report(f"wait_open of CircuitBreaker '{self.name}'", failure, error)
            self.machine.release(generation)
        else:
            self.machine.open(number, wait, now)

    def _wait_of_due_opening(self, now: float) -> float | None:
        """Return the wait of the opening that ends an undecided HALF_OPEN at `now`, where a function computes it."""
        number = self.machine.due_opening(now)
        if not number:
            return None
        found: float | None = ask(self._config.wait, f"wait_open of CircuitBreaker '{self.name}'", None, number)
        return found

    # -- manual ---------------------------------------------------------------------------------------------------

    @property
    def config(self) -> CircuitBreakerConfig:
        """The current configuration."""
        return self._config

    @property
    def state(self) -> State:
        """The state; OPEN changes to HALF_OPEN by a permitted call, or by itself with `auto_half_open`."""
        now = self.now()
        return self.machine.poll(now, self._wait_of_due_opening(now))

    def force_open(self) -> None:
        """Refuse every call until the next manual transition."""
        self.transition_to(State.FORCED_OPEN)

    def disable(self) -> None:
        """Permit every call and count nothing until the next manual transition."""
        self.transition_to(State.DISABLED)

    def transition_to(self, state: State, *, wait: Seconds | None = None) -> None:
        """Change to `state` manually, with `wait` seconds (or a `timedelta`) for OPEN.

        Raises `IllegalTransition`, and `ValueError` for a wait that is no duration; nothing changes then.
        """
        if wait is not None:
            seconds: float | None = opening(wait)
        else:
            seconds = self._config.wait(self.machine.attempts + 1) if state is State.OPEN else None
        self.machine.transition(state, self.now(), wait=seconds, counted=wait is None and state is State.OPEN)

    def reset(self) -> None:
        """Start again in CLOSED with an empty window."""
        self.machine.reset(self.now())

    def reconfigure(self, **options: Unpack[BreakerOptions]) -> None:
        """Change fields of the configuration while calls go on; recorded outcomes stay."""
        self._config = self._changed(self._config, options)
        self._verdicts.clear()
        self.machine.reconfigure(self._config, self.now())

    def _changed(self, config: CircuitBreakerConfig, options: BreakerOptions) -> CircuitBreakerConfig:
        try:
            return replace(config, **options)  # type: ignore[arg-type]  # one type or several: both are taken
        except TypeError as error:
            allowed = ", ".join(CircuitBreakerConfig.__dataclass_fields__)
            raise ConfigError([f"CircuitBreaker '{self.name}': {error}; there are: {allowed}"]) from None
        except ConfigError as error:
            raise ConfigError([f"CircuitBreaker '{self.name}': {problem}" for problem in error.problems]) from None

    def on(self, event: type[E], listener: Callable[[E], None]) -> Callable[[], None]:
        """Call `listener` for each event of this type; returns a function that stops it."""
        return self.machine.publisher.on(event, listener)

    def statistics(self) -> BreakerStatistics:
        """Return a snapshot of state, rates and counts."""
        _ = self.state  # an undecided HALF_OPEN may have ended
        return self.machine.statistics(self.now())

    def __repr__(self) -> str:
        config = self._config
        return (
            f"CircuitBreaker({self.name!r}, failure_rate={config.failure_rate:g}, window={config.window!r}, "
            f"min_calls={config.min_calls}, wait_open={config.wait_open})"
        )


def _schedule_poll(breaker: "weakref.ref[CircuitBreaker]") -> Callable[[float], None]:
    """Return a function that polls the breaker after some seconds, if an event loop runs in this thread."""

    def poll() -> None:
        if (found := breaker()) is not None:
            _ = found.state

    def schedule_poll(seconds: float) -> None:
        with contextlib.suppress(RuntimeError):  # no loop: the next call or poll finds it
            asyncio.get_running_loop().call_later(max(0.0, seconds) + 0.001, poll)

    return schedule_poll


def circuit_breaker(name: str, **options: Unpack[BreakerArguments]) -> CircuitBreaker:
    """Return a decorator with a breaker of its own: `@circuit_breaker("payments", failure_rate=50)`."""
    return CircuitBreaker(name, **options)


__all__ = ["BreakerArguments", "CircuitBreaker", "Permit", "circuit_breaker"]
