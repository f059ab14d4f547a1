"""Circuit breaker ( bulkhead ( time limiter ( call ))) as one coroutine instead of three.

A nested coroutine costs more than what these three policies do. This one does exactly what the nested ones would, with
the same policies, counters and events; a property test holds the two against each other.
"""

import asyncio
from time import monotonic
from typing import ParamSpec, TypeVar

from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.deadline import current
from backstay.resilience.policy import Call, Guarded
from backstay.resilience.time_limiter import TimeLimiter

P = ParamSpec("P")
R = TypeVar("R")


def fuse(breaker: CircuitBreaker, bulkhead: Bulkhead, limiter: TimeLimiter, call: Call[P, R]) -> Guarded[P, R]:
    """`call` inside these three."""
    machine, now, current_task = breaker.machine, breaker.now, asyncio.current_task

    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        started = now()
        era = machine.era if machine.passing else machine.acquire(started)
        try:
            if bulkhead.in_flight < bulkhead.max_calls and not bulkhead.waiting:
                bulkhead.in_flight += 1
            else:
                await bulkhead.enter()
            try:
                if current() is not None:
                    result = await limiter.until_deadline(call, *args, **kwargs)
                else:
                    task = current_task()
                    assert task is not None
                    loop, cancelling = task.get_loop(), task.cancelling()
                    table = limiter.here if limiter.loop is loop else limiter.table(loop)
                    key = table.enter(task, monotonic())
                    try:
                        result = await call(*args, **kwargs)
                    except BaseException as error:
                        limiter.ended(table.expired(key), task, cancelling, error)
                        raise
                    if table.expired(key):
                        task.uncancel()
                    limiter.successful += 1
            finally:
                bulkhead.leave()
        except BaseException as error:
            breaker.raised(era, started, error)
            raise
        if machine.quiet and now() - started <= machine.slow:
            machine.succeeded += 1
        else:
            breaker.returned(era, started, result)
        return result

    return guarded


__all__ = ["fuse"]
