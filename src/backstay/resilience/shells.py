"""The circuit breaker's fast path: what runs around every guarded call.

A call through a closed breaker reads the clock twice, compares three numbers and counts: `free` says that no permit
need be asked for, `quiet` and `until` that a fast success changes nothing else (see `state_machine`). Everything that
isn't that common is in methods of the breaker. `exact` gives these functions the parameters of what they guard.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, ParamSpec, Protocol, TypeVar

from backstay.resilience.coarse import CoarseClock
from backstay.resilience.errors import CallNotPermitted
from backstay.resilience.policy import Call, Guarded, Plain
from backstay.resilience.state_machine import StateMachine

P = ParamSpec("P")
R = TypeVar("R")


class Verdicts(Protocol):
    """What a breaker makes of a call's end."""

    machine: StateMachine
    now: Callable[[], float]

    def raised(self, era: int, started: float, error: BaseException) -> None:
        """It raised `error`."""

    def returned(self, era: int, started: float, ended: float, result: object) -> None:
        """It gave `result`."""


def around(call: Call[P, R], breaker: Verdicts, machine: StateMachine, now: Callable[[], float]) -> Guarded[P, R]:
    """A coroutine function behind a breaker."""

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        started = now()
        era = machine.free or machine.acquire(started)
        if not era:
            raise CallNotPermitted(machine.name, machine.wait, machine.state)
        try:
            result = await call(*args, **kwargs)
        except BaseException as error:
            breaker.raised(era, started, error)
            raise
        ended = now()
        if era == machine.quiet and ended - started <= machine.slow and ended < machine.until:
            machine.succeeded += 1
        else:
            breaker.returned(era, started, ended, result)
        return result

    return guarded


def around_coarsely(call: Call[P, R], breaker: Verdicts, machine: StateMachine, clock: CoarseClock) -> Guarded[P, R]:
    """The same with a coarse clock, read as an attribute: as long as it ticks, no clock is asked."""

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        started = clock.cell or clock.monotonic()
        era = machine.free or machine.acquire(started)
        if not era:
            raise CallNotPermitted(machine.name, machine.wait, machine.state)
        try:
            result = await call(*args, **kwargs)
        except BaseException as error:
            breaker.raised(era, started, error)
            raise
        if clock.cell is started and era == machine.quiet and started < machine.until:  # within one tick
            machine.succeeded += 1
            return result
        ended = clock.cell or clock.monotonic()
        if era == machine.quiet and ended - started <= machine.slow and ended < machine.until:
            machine.succeeded += 1
        else:
            breaker.returned(era, started, ended, result)
        return result

    return guarded


def around_plain(
    call: Callable[P, R], breaker: Verdicts, machine: StateMachine, now: Callable[[], float]
) -> Plain[P, R]:
    """A plain function behind a breaker that several threads share."""

    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        started = now()
        era = machine.free or machine.acquire(started)
        if not era:
            raise CallNotPermitted(machine.name, machine.wait, machine.state)
        try:
            result = call(*args, **kwargs)
        except BaseException as error:
            breaker.raised(era, started, error)
            raise
        breaker.returned(era, started, now(), result)
        return result

    return guarded


def around_generator(
    call: Callable[P, AsyncGenerator[R, Any]], breaker: Verdicts, machine: StateMachine, now: Callable[[], float]
) -> Callable[P, AsyncGenerator[R, Any]]:
    """An async generator behind a breaker: one call from its first item to its end; closing it early is no verdict."""

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, Any]:
        started = now()
        era = machine.free or machine.acquire(started)
        if not era:
            raise CallNotPermitted(machine.name, machine.wait, machine.state)
        try:
            async with aclosing(call(*args, **kwargs)) as items:
                async for item in items:
                    yield item
        except BaseException as error:
            breaker.raised(era, started, error)
            raise
        breaker.returned(era, started, now(), None)

    return guarded


__all__ = ["around", "around_coarsely", "around_generator", "around_plain"]
