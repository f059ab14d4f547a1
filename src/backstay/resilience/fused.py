"""Policies that often stand together, as one coroutine instead of several.

A nested coroutine costs more than what these policies do. `around_three` is circuit breaker ( bulkhead ( time limiter
( call ))), `around_two` is fallback ( retry ( call )). Each does exactly what the nested ones would, with the same
policies, counters and events; a property test holds the two against each other.
"""

import asyncio
import inspect
from collections.abc import Callable
from time import monotonic
from typing import ParamSpec, TypeVar

from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.deadline import current
from backstay.resilience.errors import CallNotPermitted
from backstay.resilience.exact import exact
from backstay.resilience.fallback import Fallback
from backstay.resilience.policy import Call, Guarded
from backstay.resilience.retry import Retry
from backstay.resilience.state_machine import StateMachine
from backstay.resilience.time_limiter import TimeLimiter

P = ParamSpec("P")
R = TypeVar("R")


def can_fuse(breaker: CircuitBreaker) -> bool:
    """Whether the breaker reads the clock that time limiters go by: one reading serves both then."""
    return breaker.now is monotonic


def fuse_three(call: Call[P, R], breaker: CircuitBreaker, bulkhead: Bulkhead, limiter: TimeLimiter) -> Guarded[P, R]:
    """`call` inside these."""
    fused: Guarded[P, R] = exact(
        around_three, call, breaker, bulkhead, limiter, breaker.machine, monotonic, asyncio.current_task
    )
    return fused


def fuse_two(call: Call[P, R], fallback: Fallback, retry: Retry) -> Guarded[P, R]:
    """`call` inside these."""
    fused: Guarded[P, R] = exact(around_two, call, fallback, retry)
    return fused


def around_three(
    call: Call[P, R],
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    limiter: TimeLimiter,
    machine: StateMachine,
    now: Callable[[], float],
    current_task: Callable[[], "asyncio.Task[object] | None"],
) -> Guarded[P, R]:
    """Circuit breaker ( bulkhead ( time limiter ( call )))."""

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        begun = started = now()
        era = machine.free or machine.acquire(started)
        if not era:
            raise CallNotPermitted(machine.name, machine.wait, machine.state)
        try:
            if bulkhead.in_flight < bulkhead.free:
                bulkhead.in_flight += 1
            else:
                await bulkhead.enter()
                begun = now()
            try:
                if current() is not None:
                    result = await limiter.until_deadline(call, *args, **kwargs)
                else:
                    task = current_task()
                    assert task is not None  # a coroutine of ours is always run by a task
                    cancelling, loop, table = task.cancelling(), task.get_loop(), limiter.latest
                    if table.loop is not loop:
                        table = limiter.table(loop)
                    key = table.enter(task, begun)
                    try:
                        result = await call(*args, **kwargs)
                    except BaseException as error:
                        limiter.ended(table.expired(key), task, cancelling, error)
                        raise
                    if table.expired(key):
                        task.uncancel()
                    limiter.successful += 1
            finally:
                if bulkhead.free:
                    bulkhead.in_flight -= 1
                else:
                    bulkhead.leave()
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


def around_two(call: Call[P, R], fallback: Fallback, retry: Retry) -> Guarded[P, R]:
    """Fallback ( retry ( call ))."""
    budget, judge = retry.budget, retry.retry_result

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            if budget is not None:
                budget.call()
            try:
                result = await call(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 - raised again unless retried
                wait = retry.after_error(1, error)
            else:
                if judge is None:
                    retry.successful += 1
                    return result
                if (wait := retry.after_result(1, result)) < 0:
                    return result
            return await retry.again(wait, call, *args, **kwargs)
        except Exception as error:
            handler = fallback.handler_for(error)
            if handler is None:
                raise
            answer = fallback.take(error, handler, *args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer  # type: ignore[no-any-return]

    return guarded


__all__ = ["can_fuse", "fuse_three", "fuse_two"]
