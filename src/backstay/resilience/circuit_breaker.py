"""The circuit breaker: what it makes of calls and their endings; its states and counts are in `state_machine`."""

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
    """What makes a circuit breaker besides its name."""

    config: CircuitBreakerConfig
    threads: bool
    clock: Clock


class Permit:
    """Leave to make one call; tell it once how the call went. Leaving a `with` block untold gives it back.

    So does dropping it untold, at the next call that needs a permit.
    """

    __slots__ = ("_breaker", "_era", "_started", "_told")

    def __init__(self, breaker: "CircuitBreaker") -> None:
        self._told = True  # until there is something to tell
        self._breaker = breaker
        self._era, self._started = breaker.admitted_plain()
        self._told = False

    def restart(self) -> None:
        """The time of the call counts from now on: what went before was not the dependency's."""
        self._started = self._breaker.now()

    @property
    def is_slow(self) -> bool:
        """Whether the call takes longer already than the breaker's threshold of slow calls."""
        duration: float = self._breaker.now() - self._started
        return duration > self._breaker.machine.slow

    def success(self, result: object = None) -> None:
        """The call gave `result`."""
        self._settle(None, result)

    def failure(self, error: BaseException) -> None:
        """The call raised `error`, whose kind decides what that says (see `verdict`)."""
        self._settle(error, None)

    def release(self) -> None:
        """The call said nothing about the dependency, or wasn't made."""
        if not self._told:
            self._told = True
            self._breaker.machine.release(self._era)

    def _settle(self, error: BaseException | None, result: object) -> None:
        if not self._told:
            self._told = True
            self._breaker.settle((self._era, self._started), error, result)

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
        if not self._told:
            self._breaker.machine.abandon(self._era)


class _PermitBlock(AdmittedBlock):
    """A block behind a breaker: its normal end is a success, an exception a failure, unless the permit was told."""

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
        era, started = self._token
        self._token = permit = Permit.__new__(Permit)
        permit._breaker, permit._era, permit._started, permit._told = self._breaker, era, started, False
        return permit


class CircuitBreaker(Admission):
    """Stops calling a dependency that fails or is slow, and tries it again after a while.

    name: shown in events, metrics and rejections.
    config: a whole configuration; the keyword arguments are the fields of `CircuitBreakerConfig` and win over it.
    threads: used from several threads: every step takes a lock. Around a plain function that is so by itself.
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
        self.machine = StateMachine(name, self._config, self.now(), _alarm(weakref.ref(self)))
        if threads:
            self.machine.share()

    # -- guarding -------------------------------------------------------------------------------------------------

    def share(self) -> None:
        """Be used by several threads from now on."""
        self.machine.share()

    def block(self) -> Block:
        """Guard a block: its normal end is a success, an exception a failure, unless the permit was told otherwise."""
        return _PermitBlock(self)

    def permit(self) -> Permit:
        """A permit to be told by hand; raises `CallNotPermitted`."""
        return Permit(self)

    def acquire(self) -> Token | CallNotPermitted:
        """Admit a call, or refuse it."""
        machine, started = self.machine, self.now()
        wait = self._wait_after_visit(started) if machine.state is HALF_OPEN else None
        return machine.acquire(started, wait)

    def functions(self) -> tuple[Callable[[], Any], Callable[..., None]]:
        """`acquire` and `settle` with what a call through a closed breaker needs at hand."""
        machine, now, judge = self.machine, self.now, self.settle
        admit, wait_after_visit = machine.acquire, self._wait_after_visit

        def acquire() -> Token | CallNotPermitted:
            era, started = machine.free, now()
            if era:
                return era, started
            return admit(started, wait_after_visit(started) if machine.state is HALF_OPEN else None)

        def settle(token: Any, error: BaseException | None, result: object = None) -> None:
            if error is None:
                era, started = token
                ended = now()
                if era == machine.quiet and ended - started <= machine.slow and ended < machine.until:
                    machine.succeeded += 1
                    return
            judge(token, error, result)

        return acquire, settle

    def settle(self, token: Any, error: BaseException | None, result: object = None) -> None:
        """The call ended with `error`, or with `result`."""
        machine, ended = self.machine, self.now()
        era, started = token
        duration = ended - started
        verdict, shown, open_for = self._verdicts.get(type(error)), error, None
        if verdict is None:  # foreign code first
            try:
                verdict, shown, open_for = self._judge(error, result, duration)
            except BaseException:
                machine.release(era)
                raise
        if verdict is FAILURE or verdict is SUCCESS:
            number = machine.settle(era, duration, ended, verdict is FAILURE, shown, open_for)
            if number:
                self._open(era, number, ended, error)
        elif verdict is GIVEN_BACK:
            machine.release(era, impatient=isinstance(error, DeadlineTimeout))
        else:
            assert error is not None
            machine.ignore(era, duration, ended, error, open_for)

    def _judge(
        self, error: BaseException | None, result: object, duration: float
    ) -> tuple[Verdict, BaseException | None, float | None]:
        """The verdict on an ending, the error that shows it, and the seconds to be open for that it asks for."""
        config = self._config
        if error is not None:
            verdict = self._verdict_on(error, duration)
            if config.open_if is None or verdict is GIVEN_BACK:
                return verdict, error, None
            return verdict, error, self._asked_for(error)
        if (
            config.fail_result is not None
            and result is not None
            and ask(config.fail_result, "fail_result", False, result)
        ):
            return FAILURE, events.ResultRecordedAsFailure(result), None
        if config.open_if is not None and result is not None:
            return SUCCESS, None, self._asked_for(result)
        return SUCCESS, None, None

    def _verdict_on(self, error: BaseException, duration: float) -> Verdict:
        """The verdict on an error; remembered by its type where that is all there is to say."""
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

    def _asked_for(self, outcome: object) -> float | None:
        """The seconds that `open_if` wants the breaker to be open for."""
        open_if = self._config.open_if
        assert open_if is not None

        def asked() -> float | None:
            wait = open_if(outcome)
            return None if wait is None else opening(wait)

        found: float | None = ask(asked, f"open_if of CircuitBreaker '{self.name}'", None, about=outcome)
        return found

    def _open(self, era: int, number: int, now: float, error: BaseException | None) -> None:
        """Open by a wait that a function tells; one that fails leaves the state as it was, and the permit goes back."""
        try:
            wait = self._config.wait(number)
        except Exception as failure:  # noqa: BLE001 - reported
            report(f"wait_open of CircuitBreaker '{self.name}'", failure, error)
            self.machine.release(era)
        else:
            self.machine.open(number, wait, now)

    def _wait_after_visit(self, now: float) -> float | None:
        """The wait of the opening that ends an undecided visit at `now`, where a function tells it."""
        number = self.machine.expiring(now)
        if not number:
            return None
        found: float | None = ask(self._config.wait, f"wait_open of CircuitBreaker '{self.name}'", None, number)
        return found

    # -- by hand --------------------------------------------------------------------------------------------------

    @property
    def config(self) -> CircuitBreakerConfig:
        """The present configuration."""
        return self._config

    @property
    def state(self) -> State:
        """The state; OPEN turns to HALF_OPEN by a call that may try, or by itself with `auto_half_open`."""
        now = self.now()
        return self.machine.look(now, self._wait_after_visit(now))

    def force_open(self) -> None:
        """Refuse every call until told otherwise."""
        self.transition_to(State.FORCED_OPEN)

    def disable(self) -> None:
        """Let every call pass, and count nothing, until told otherwise."""
        self.transition_to(State.DISABLED)

    def transition_to(self, state: State, *, wait: Seconds | None = None) -> None:
        """Go to `state` by hand, with `wait` seconds (or a `timedelta`) for OPEN.

        Raises `IllegalTransition`, and `ValueError` for a wait that is no duration; nothing changes then.
        """
        if wait is not None:
            seconds: float | None = opening(wait)
        else:
            seconds = self._config.wait(self.machine.attempts + 1) if state is State.OPEN else None
        self.machine.transition(state, self.now(), wait=seconds, counted=wait is None and state is State.OPEN)

    def reset(self) -> None:
        """A fresh closed state, whatever was before."""
        self.machine.reset(self.now())

    def reconfigure(self, **options: Unpack[BreakerOptions]) -> None:
        """Change fields of the configuration while calls go on; what was counted stays."""
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
        """A snapshot of state, rates and counts."""
        _ = self.state  # an undecided visit may have ended
        return self.machine.statistics(self.now())

    def __repr__(self) -> str:
        config = self._config
        return (
            f"CircuitBreaker({self.name!r}, failure_rate={config.failure_rate:g}, window={config.window!r}, "
            f"min_calls={config.min_calls}, wait_open={config.wait_open})"
        )


def _alarm(breaker: "weakref.ref[CircuitBreaker]") -> Callable[[float], None]:
    """Looks at the breaker after some seconds, if an event loop runs here; a look that comes too late moves nothing."""

    def look() -> None:
        if (found := breaker()) is not None:
            _ = found.state

    def alarm(seconds: float) -> None:
        with contextlib.suppress(RuntimeError):  # no loop: the next look finds it
            asyncio.get_running_loop().call_later(max(0.0, seconds) + 0.001, look)

    return alarm


def circuit_breaker(name: str, **options: Unpack[BreakerArguments]) -> CircuitBreaker:
    """A decorator with a breaker of its own: `@circuit_breaker("payments", failure_rate=50)`."""
    return CircuitBreaker(name, **options)


__all__ = ["BreakerArguments", "CircuitBreaker", "Permit", "circuit_breaker"]
