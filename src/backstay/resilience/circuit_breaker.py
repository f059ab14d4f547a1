"""The circuit breaker: the shell around a coroutine function or a plain one; all rules are in `statemachine`.

A call through a closed breaker whose window is full of fast successes touches one counter: the two flags `passing` and
`quiet` of the state machine say when that is allowed.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from backstay.clock import SYSTEM, Clock
from backstay.errors import ConfigError
from backstay.resilience import events
from backstay.resilience.config import CircuitBreakerConfig, one_of
from backstay.resilience.errors import Rejected
from backstay.resilience.events import State
from backstay.resilience.policy import Call, Guarded, Plain, Policy
from backstay.resilience.state_machine import BreakerStatistics, SharedStateMachine, StateMachine

P = ParamSpec("P")
R = TypeVar("R")
E = TypeVar("E", bound=events.Event)

FROM_OUTSIDE = (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)
"""Endings that say nothing about the dependency."""
OUTSIDE = events.Event  # the verdict on them: no event of any kind
MAX_VERDICTS = 200  # exception types whose verdict is remembered


class Permit:
    """Leave to make one call; tell it once how the call went. Leaving a `with` block untold gives it back."""

    __slots__ = ("_breaker", "_era", "_started", "_told")

    def __init__(self, breaker: "CircuitBreaker") -> None:
        self._breaker = breaker
        self._told = False
        self._started = breaker.now()
        self._era = breaker.machine.acquire(self._started)

    def success(self, result: object = None) -> None:
        """The call gave `result`."""
        if not self._told:
            self._told = True
            self._breaker.returned(self._era, self._started, result)

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


class CircuitBreaker(Policy):
    """Stops calling a dependency that fails or is slow, and tries it again after a while.

    name: shown in events, metrics and rejections.
    config: a whole configuration; the keyword arguments are the fields of `CircuitBreakerConfig` and win over it.
    threads: used from several threads, or around plain functions: every step takes a lock.
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
        try:
            self._config = replace(config or CircuitBreakerConfig(), **options)
        except TypeError as error:
            allowed = ", ".join(CircuitBreakerConfig.__dataclass_fields__)
            raise ConfigError([f"CircuitBreaker '{name}': {error}; there are: {allowed}"]) from None
        except ConfigError as error:
            raise ConfigError([f"CircuitBreaker '{name}': {problem}" for problem in error.problems]) from None
        self.name = name
        self.now = clock.monotonic
        self._verdicts: dict[type[BaseException], type[events.Event]] = {}
        self.machine = (SharedStateMachine if threads else StateMachine)(name, self._config, self.now())

    # -- guarding -------------------------------------------------------------------------------------------------

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function: refuse it while open, count its outcome otherwise."""
        machine, now = self.machine, self.now

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            started = now()
            era = machine.era if machine.passing else machine.acquire(started)
            try:
                result = await call(*args, **kwargs)
            except BaseException as error:
                self.raised(era, started, error)
                raise
            if machine.quiet and now() - started <= machine.slow:
                machine.succeeded += 1
            else:
                self.returned(era, started, result)
            return result

        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function; the breaker must be built with `threads=True`."""
        if not isinstance(self.machine, SharedStateMachine):
            raise ConfigError([f"CircuitBreaker '{self.name}': around a plain function it needs threads=True"])

        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            started = self.now()
            era = self.machine.acquire(started)
            try:
                result = call(*args, **kwargs)
            except BaseException as error:
                self.raised(era, started, error)
                raise
            self.returned(era, started, result)
            return result

        return guarded

    @contextmanager
    def block(self) -> Iterator[Permit]:
        """Guard a block: its normal end is a success, an exception a failure, unless the permit was told otherwise."""
        permit = Permit(self)
        try:
            yield permit
        except BaseException as error:
            permit.failure(error)
            raise
        permit.success()

    def permit(self) -> Permit:
        """A permit to be told by hand; raises `CallNotPermitted`."""
        return Permit(self)

    def raised(self, era: int, started: float, error: BaseException) -> None:
        """A call that began at `started` with a permit of `era` raised `error`."""
        machine = self.machine
        verdict = self._verdicts.get(type(error)) or self._judge(error)
        if verdict is OUTSIDE:
            machine.release(era)
            return
        now = self.now()
        duration = now - started
        if machine.publisher.heard:
            machine.publish(verdict, duration=duration, **({} if verdict is events.CallSucceeded else {"error": error}))
        if verdict is events.CallIgnored:
            machine.ignored += 1
            machine.release(era)
        else:
            machine.settle(era, duration, now, failed=verdict is events.CallFailed)

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

    def returned(self, era: int, started: float, result: object) -> None:
        """A call that began at `started` with a permit of `era` gave `result`."""
        now, machine = self.now(), self.machine
        duration = now - started
        fail = self._config.fail_result
        if fail is not None and result is not None and fail(result):
            machine.publish(events.CallFailed, duration=duration, error=events.ResultRecordedAsFailure(result))
            machine.settle(era, duration, now, failed=True)
        else:
            if machine.publisher.heard:
                machine.publish(events.CallSucceeded, duration=duration)
            machine.settle(era, duration, now, failed=False)

    # -- by hand --------------------------------------------------------------------------------------------------

    @property
    def config(self) -> CircuitBreakerConfig:
        """The present configuration."""
        return self._config

    @property
    def state(self) -> State:
        """The state; OPEN turns to HALF_OPEN by a call that may try, or by itself with `auto_half_open`."""
        return self.machine.look(self.now())

    def transition_to(self, state: State, *, wait: float | None = None) -> None:
        """Go to `state` by hand, with `wait` seconds for OPEN. Raises `IllegalTransition`, and changes nothing then."""
        self.machine.transition(state, self.now(), wait=wait)

    def reset(self) -> None:
        """A fresh closed state, whatever was before."""
        self.machine.reset(self.now())

    def reconfigure(self, **options: Any) -> None:
        """Change fields of the configuration while calls go on; what was counted stays."""
        self._config = replace(self._config, **options)
        self._verdicts.clear()
        self.machine.reconfigure(self._config, self.now())

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


def circuit_breaker(name: str, **options: Any) -> CircuitBreaker:
    """A decorator with a breaker of its own: `@circuit_breaker("payments", failure_rate=50)`."""
    return CircuitBreaker(name, **options)


__all__ = ["CircuitBreaker", "Permit", "circuit_breaker"]
