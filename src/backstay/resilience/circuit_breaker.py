"""The circuit breaker: the shell around functions and blocks; all rules are in `state_machine`."""

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.resilience import events, shells
from backstay.resilience.coarse import CoarseClock
from backstay.resilience.config import CircuitBreakerConfig, one_of
from backstay.resilience.errors import CallNotPermitted, Rejected
from backstay.resilience.events import State
from backstay.resilience.exact import exact
from backstay.resilience.policy import Block, Call, Generator, Guarded, Plain, Policy
from backstay.resilience.state_machine import BreakerStatistics, StateMachine

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

FROM_OUTSIDE = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""Endings that say nothing about the dependency."""
OUTSIDE = events.Event  # the verdict on them: no event of any kind
FAILED, IGNORED = events.CallFailed, events.CallIgnored
MAX_VERDICTS = 200  # exception types whose verdict is remembered


class Permit:
    """Leave to make one call; tell it once how the call went. Leaving a `with` block untold gives it back."""

    __slots__ = ("_breaker", "_era", "_started", "_told")

    def __init__(self, breaker: "CircuitBreaker") -> None:
        machine = breaker.machine
        self._breaker = breaker
        self._told = False
        self._started = now = breaker.now()
        self._era = era = machine.free or machine.acquire(now)
        if not era:
            raise CallNotPermitted(machine.name, machine.wait, machine.state)

    def restart(self) -> None:
        """The time of the call counts from now on: what went before was not the dependency's."""
        self._started = self._breaker.now()

    @property
    def is_slow(self) -> bool:
        """Whether the call takes longer already than the breaker's threshold of slow calls."""
        return self._breaker.now() - self._started > self._breaker.machine.slow

    def success(self, result: object = None) -> None:
        """The call gave `result`."""
        if self._told:
            return
        self._told = True
        breaker = self._breaker
        machine, ended = breaker.machine, breaker.now()
        if self._era == machine.quiet and ended - self._started <= machine.slow and ended < machine.until:
            machine.succeeded += 1  # as in `shells`
        else:
            breaker.returned(self._era, self._started, ended, result)

    def failure(self, error: BaseException) -> None:
        """The call raised `error`."""
        if not self._told:
            self._told = True
            self._breaker.raised(self._era, self._started, error)

    def release(self) -> None:
        """The call said nothing about the dependency, or wasn't made."""
        if not self._told:
            self._told = True
            self._breaker.machine.release(self._era)


class _Guarded(Block):
    """A block behind a breaker: its normal end is a success, an exception a failure, unless the permit was told."""

    def __init__(self, breaker: "CircuitBreaker") -> None:
        self._breaker = breaker
        self._permit: Permit | None = None

    def enter_plain(self) -> Permit:
        self._permit = self._breaker.permit()
        return self._permit

    def leave_plain(self, error: BaseException | None) -> None:
        assert self._permit is not None
        if error is None:
            self._permit.success()
        else:
            self._permit.failure(error)


class CircuitBreaker(Policy):
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
        **options: Any,
    ) -> None:
        self.name = name
        self.clock = clock
        self.now = clock.monotonic
        self._config = self._changed(config or CircuitBreakerConfig(), options)
        self._verdicts: dict[type[BaseException], type[events.Event]] = {}
        self.machine = StateMachine(name, self._config, self.now(), _alarm(weakref.ref(self)))
        if threads:
            self.machine.share()

    # -- guarding -------------------------------------------------------------------------------------------------

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function: refuse it while open, count its outcome otherwise."""
        guarded: Guarded[P, R]
        if isinstance(self.clock, CoarseClock):
            guarded = exact(shells.around_coarsely, call, self, self.machine, self.clock)
        else:
            guarded = exact(shells.around, call, self, self.machine, self.now)
        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function, which several threads may call."""
        self.machine.share()
        guarded: Plain[P, R] = exact(shells.around_plain, call, self, self.machine, self.now)
        return guarded

    def wrap_generator(self, call: Generator[P, R]) -> Generator[P, R]:
        """Guard an async generator as one call, from its first item to its end."""
        return shells.around_generator(call, self, self.machine, self.now)

    def block(self) -> Block:
        """Guard a block: its normal end is a success, an exception a failure, unless the permit was told otherwise."""
        return _Guarded(self)

    def permit(self) -> Permit:
        """A permit to be told by hand; raises `CallNotPermitted`."""
        return Permit(self)

    def raised(self, era: int, started: float, error: BaseException) -> None:
        """A call that began at `started` with a permit of `era` raised `error`."""
        machine = self.machine
        verdict = self._verdicts.get(type(error)) or self._judge(error)
        ended = self.now()
        if verdict is FAILED and not machine.heard:
            machine.settle(era, ended - started, ended, True)
        elif verdict is OUTSIDE:
            machine.release(era)
            return
        else:
            self._tell(verdict, error, ended - started)
            if verdict is IGNORED:
                machine.ignored += 1
                machine.release(era)
                return
            machine.settle(era, ended - started, ended, verdict is FAILED)
        if self._config.open_if is not None:
            self._open_if(era, ended, error)

    def _tell(self, verdict: type[events.Event], error: BaseException, duration: float) -> None:
        if verdict is events.CallSucceeded:
            self.machine.publish(verdict, duration=duration)
        else:
            self.machine.publish(verdict, duration=duration, error=error)

    def _judge(self, error: BaseException) -> type[events.Event]:
        """What an error says; remembered by its type unless a predicate has to look at each."""
        config = self._config
        if isinstance(error, FROM_OUTSIDE):
            verdict: type[events.Event] = OUTSIDE
        elif isinstance(error, Rejected) or one_of(config.ignore, config.ignore_if, error):
            verdict = events.CallIgnored
        else:
            verdict = events.CallFailed if one_of(config.record, config.record_if, error) else events.CallSucceeded
        if config.ignore_if is None and config.record_if is None and len(self._verdicts) < MAX_VERDICTS:
            self._verdicts[type(error)] = verdict
        return verdict

    def returned(self, era: int, started: float, ended: float, result: object) -> None:
        """A call that began at `started` with a permit of `era` ended at `ended` and gave `result`."""
        machine, config = self.machine, self._config
        fail = config.fail_result
        if fail is not None and result is not None and fail(result):
            error = events.ResultRecordedAsFailure(result)
            machine.publish(events.CallFailed, duration=ended - started, error=error)
            machine.settle(era, ended - started, ended, True)
            return
        if machine.publisher.heard:
            machine.publish(events.CallSucceeded, duration=ended - started)
        machine.settle(era, ended - started, ended, False)
        if config.open_if is not None and result is not None:
            self._open_if(era, ended, result)

    def _open_if(self, era: int, now: float, outcome: object) -> None:
        assert self._config.open_if is not None
        wait = self._config.open_if(outcome)
        if wait is not None:
            self.machine.open_for(era, wait, now)

    # -- by hand --------------------------------------------------------------------------------------------------

    @property
    def config(self) -> CircuitBreakerConfig:
        """The present configuration."""
        return self._config

    @property
    def state(self) -> State:
        """The state; OPEN turns to HALF_OPEN by a call that may try, or by itself with `auto_half_open`."""
        return self.machine.look(self.now())

    def force_open(self) -> None:
        """Refuse every call until told otherwise."""
        self.transition_to(State.FORCED_OPEN)

    def disable(self) -> None:
        """Let every call pass, and count nothing, until told otherwise."""
        self.transition_to(State.DISABLED)

    def transition_to(self, state: State, *, wait: float | None = None) -> None:
        """Go to `state` by hand, with `wait` seconds for OPEN. Raises `IllegalTransition`, and changes nothing then."""
        self.machine.transition(state, self.now(), wait=wait)

    def reset(self) -> None:
        """A fresh closed state, whatever was before."""
        self.machine.reset(self.now())

    def reconfigure(self, **options: Any) -> None:
        """Change fields of the configuration while calls go on; what was counted stays."""
        self._config = self._changed(self._config, options)
        self._verdicts.clear()
        self.machine.reconfigure(self._config, self.now())

    def _changed(self, config: CircuitBreakerConfig, options: dict[str, Any]) -> CircuitBreakerConfig:
        try:
            return replace(config, **options)
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
            found.machine.look(found.now())

    def alarm(seconds: float) -> None:
        with contextlib.suppress(RuntimeError):  # no loop: whoever asks next looks
            asyncio.get_running_loop().call_later(max(0.0, seconds) + 0.001, look)

    return alarm


def circuit_breaker(name: str, **options: Any) -> CircuitBreaker:
    """A decorator with a breaker of its own: `@circuit_breaker("payments", failure_rate=50)`."""
    return CircuitBreaker(name, **options)


__all__ = ["CircuitBreaker", "Permit", "circuit_breaker"]
