"""Permits and places come back: for every policy, every way to enter and every way to leave."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

import backstay.resilience as r
from backstay.testing import FakeClock

PLACES = 2


class Boom(Exception):
    pass


class Killed(BaseException):
    """As gevent's GreenletExit, or its Timeout: an ending that is no Exception."""


# -- policies, and how many calls each would admit at this moment ------------------------------------------------------


def breaker(**options: Any) -> r.CircuitBreaker:
    """Half-open, with two probes."""
    options = {"window": r.last(4), "min_calls": 4, "half_open": r.probes(PLACES), "clock": FakeClock()} | options
    guard = r.CircuitBreaker("x", **options)
    guard.transition_to(r.State.OPEN)
    guard.transition_to(r.State.HALF_OPEN)
    return guard


def raising(outcome: object) -> Any:
    raise RuntimeError(f"a predicate that fails on {outcome!r}")


def interrupted(outcome: object) -> Any:
    raise KeyboardInterrupt


def listened(listener: Callable[[Any], None]) -> r.CircuitBreaker:
    guard = breaker()
    guard.on(r.Event, listener)
    return guard


POLICIES: dict[str, Callable[[], r.Policy]] = {
    "breaker": breaker,
    "breaker, threads": lambda: breaker(threads=True),
    "breaker, fail_result raises": lambda: breaker(fail_result=raising),
    "breaker, record_if raises": lambda: breaker(record=(), record_if=raising),
    "breaker, ignore_if raises": lambda: breaker(ignore_if=raising),
    "breaker, open_if raises": lambda: breaker(open_if=raising),
    "breaker, fail_result interrupted": lambda: breaker(fail_result=interrupted),
    "breaker, ignore_if interrupted": lambda: breaker(ignore_if=interrupted),
    "breaker, listener raises": lambda: listened(raising),
    "breaker, listener interrupted": lambda: listened(interrupted),
    "bulkhead": lambda: r.Bulkhead(PLACES, max_wait=0.05),
    "bulkhead, threads": lambda: r.Bulkhead(PLACES, max_wait=0.05, threads=True),
    "time limiter": lambda: r.TimeLimiter(5.0),
    "pipeline": lambda: r.pipeline(breaker(), r.Bulkhead(PLACES), r.TimeLimiter(5.0)),
    "pipeline without a time limiter": lambda: r.pipeline(breaker(), r.Bulkhead(PLACES)),
}


def accounted(policy: r.Policy) -> int:
    """How many calls it would admit, those counted by a half-open breaker included."""
    if isinstance(policy, r.Pipeline):
        return min(accounted(layer) for layer in policy.layers if isinstance(layer, r.Policy))
    if isinstance(policy, r.CircuitBreaker):
        with contextlib.suppress(KeyboardInterrupt):
            _ = policy.state
        if policy.state is not r.State.HALF_OPEN:  # decided by what was counted
            return PLACES
        return _free_probes(policy) + policy.statistics().buffered_calls
    if isinstance(policy, r.Bulkhead):
        now = policy.statistics()
        assert now.waiting == 0
        return now.max_concurrent_calls - now.in_flight
    assert isinstance(policy, r.TimeLimiter)
    return PLACES - sum(len(table.live) for table in policy._tables.values())


def _free_probes(guard: r.CircuitBreaker) -> int:
    permits = []
    while True:
        try:
            permits.append(guard.permit())
        except (r.CallNotPermitted, KeyboardInterrupt):  # its listener may be interrupted at the refusal
            break
    for permit in permits:
        permit.release()
    return len(permits)


# -- ways to enter and leave ------------------------------------------------------------------------------------------

ENDINGS: dict[str, BaseException | None] = {
    "result": None,
    "error": Boom(),
    "refusal": r.BulkheadFull("inner"),
    "cancelled": asyncio.CancelledError(),
    "generator exit": GeneratorExit(),
    "interrupt": KeyboardInterrupt(),
    "exit": SystemExit(),
    "killed": Killed(),
    "group": ExceptionGroup("g", [Boom(), r.BulkheadFull("inner")]),
    "base group": BaseExceptionGroup("g", [Killed(), Boom()]),
}


def end(ending: str) -> int:
    error = ENDINGS[ending]
    if error is not None:
        raise error
    return 1


class swallowed(contextlib.AbstractContextManager[None]):
    """Whatever ends the use of a policy is caught here."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        return True


async def in_task(awaitable: Awaitable[Any]) -> None:
    """Await in another task; even a KeyboardInterrupt stays there."""

    async def run() -> None:
        with swallowed():
            await awaitable

    await asyncio.create_task(run())


def in_thread(function: Callable[[], Any]) -> None:
    def run() -> None:
        with swallowed():
            function()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


async def by_function(policy: r.Policy, ending: str) -> None:
    async def call() -> int:
        await asyncio.sleep(0)
        return end(ending)

    await in_task(policy(call)())


async def by_call(policy: r.Policy, ending: str) -> None:
    async def call() -> int:
        return end(ending)

    await in_task(policy.call(call))


async def by_plain_function(policy: r.Policy, ending: str) -> None:
    with swallowed():
        policy(lambda: end(ending))()


async def by_block(policy: r.Policy, ending: str) -> None:
    async def use() -> None:
        async with policy:
            end(ending)

    await in_task(use())


async def by_plain_block(policy: r.Policy, ending: str) -> None:
    with swallowed(), policy:
        end(ending)


async def by_thread(policy: r.Policy, ending: str) -> None:
    def use() -> None:
        with policy:
            end(ending)

    in_thread(use)


async def by_exit_stack(policy: r.Policy, ending: str) -> None:
    async def use() -> None:
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(policy)
            await stack.enter_async_context(policy)
            end(ending)

    await in_task(use())


async def by_async_generator(policy: r.Policy, ending: str) -> None:
    @policy
    async def items() -> AsyncIterator[int]:
        yield 1
        yield end(ending)

    async def use() -> None:
        async for _ in items():
            pass

    await in_task(use())


async def by_generator(policy: r.Policy, ending: str) -> None:
    with swallowed():

        @policy
        def items() -> Iterator[int]:
            yield 1
            yield end(ending)

        list(items())


async def left_by_another_task(policy: r.Policy, ending: str) -> None:
    async def dependency() -> AsyncIterator[int]:
        async with policy:
            yield 1

    use: Any = dependency()
    await in_task(anext(use))
    error = ENDINGS[ending]
    await in_task(use.aclose() if error is None else use.athrow(error))
    await in_task(use.aclose())


async def left_by_another_thread(policy: r.Policy, ending: str) -> None:
    def dependency() -> Iterator[int]:
        with policy:
            yield end("result")

    use: Any = dependency()
    in_thread(lambda: next(use))
    error = ENDINGS[ending]
    in_thread(use.close if error is None else lambda: use.throw(error))


async def interleaved(policy: r.Policy, ending: str) -> None:
    async def dependency() -> AsyncIterator[int]:
        async with policy:
            yield 1

    first: Any = dependency()
    second: Any = dependency()
    for use in (first, second):
        with swallowed():
            await anext(use)
    error = ENDINGS[ending]
    await in_task(first.aclose() if error is None else first.athrow(error))
    with swallowed():
        await second.aclose()
    with swallowed():
        await first.aclose()


async def abandoned(policy: r.Policy, ending: str) -> None:
    async def dependency() -> AsyncIterator[int]:
        async with policy:
            yield 1
            yield 2

    guarded = policy(dependency)

    async def use() -> None:
        for make in (dependency, guarded):
            with swallowed():
                async for _ in make():
                    break

    await use()
    gc.collect()
    for _ in range(10):
        await asyncio.sleep(0)


async def abandoned_plain(policy: r.Policy, ending: str) -> None:
    def dependency() -> Iterator[int]:
        with policy:
            yield 1

    with swallowed():
        next(dependency())
    with swallowed():
        next(policy(dependency)())
    gc.collect()


async def cancelled_from_outside(policy: r.Policy, ending: str) -> None:
    async def use() -> None:
        with swallowed():
            await policy.call(asyncio.Event().wait)

    task = asyncio.create_task(use())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def beyond_its_deadline(policy: r.Policy, ending: str) -> None:
    for seconds in (0.01, -1.0):
        with r.deadline(seconds):
            await in_task(policy.call(asyncio.Event().wait))


async def too_many(policy: r.Policy, ending: str) -> None:
    """More than there are places for: some wait, some are refused, some are cancelled while they wait."""

    async def call() -> int:
        await asyncio.sleep(0.001)
        return end(ending)

    tasks = [asyncio.create_task(in_task(policy.call(call))) for _ in range(3 * PLACES)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[-1].cancel()
    await asyncio.wait(tasks)


WAYS = [
    by_function,
    by_call,
    by_plain_function,
    by_block,
    by_plain_block,
    by_thread,
    by_exit_stack,
    by_async_generator,
    by_generator,
    left_by_another_task,
    left_by_another_thread,
    interleaved,
    abandoned,
    abandoned_plain,
    cancelled_from_outside,
    beyond_its_deadline,
    too_many,
]
NOT_FOR_TIME_LIMITERS = (
    by_plain_function,
    by_plain_block,
    by_thread,
    by_generator,
    left_by_another_thread,
    abandoned_plain,
)
ENDED_FROM_OUTSIDE = (abandoned, abandoned_plain, cancelled_from_outside, beyond_its_deadline)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("name", POLICIES)
async def test_what_is_taken_comes_back(name: str, way: Callable[[r.Policy, str], Awaitable[None]]) -> None:
    """Whatever ends a use: the policy admits as many as before, what a half-open breaker has counted included."""
    for ending in ENDINGS if way not in ENDED_FROM_OUTSIDE else ["result"]:
        policy = POLICIES[name]()
        if way in NOT_FOR_TIME_LIMITERS and "TimeLimiter" in repr(policy):
            with contextlib.suppress(TypeError):
                await way(policy, ending)
        else:
            await way(policy, ending)

        assert accounted(policy) == PLACES, f"{ending}: {policy!r}"


# -- what waits ---------------------------------------------------------------------------------------------------


class Interrupting(FakeClock):
    """A clock whose waits are interrupted."""

    def wait(self, seconds: float) -> None:
        raise Killed


@pytest.mark.parametrize("threads", [False, True])
def test_an_interrupted_thread_gives_its_reservation_back(threads: bool) -> None:
    """Ctrl-C, or gevent's kill, while a thread waits for its turn: the turn is free for others."""
    limiter = r.RateLimiter(1, period=10, max_wait=30, threads=threads, clock=Interrupting())
    limiter.enter_plain()
    for use in (limiter.enter_plain, limiter(lambda: 1), limiter.__enter__):
        with pytest.raises(Killed):
            use()

    assert limiter.statistics().available_permissions == 0
    assert limiter.statistics().waiting == 0


def test_an_interrupted_thread_gives_up_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a thread that waits for a bulkhead's place; one that came meanwhile is handed on."""
    bulkhead = r.Bulkhead(1, max_wait=30)
    bulkhead.enter_plain()
    arrived = iter([False, True])

    def interrupt(claim: Any, seconds: float) -> bool:
        if next(arrived):
            bulkhead.leave()  # the place is handed over in the moment of the interrupt
        raise Killed

    monkeypatch.setattr("backstay.resilience.waiter.Waiter.wait_plain", interrupt)
    for in_flight in (1, 0):
        with pytest.raises(Killed):
            bulkhead.enter_plain()

        assert bulkhead.statistics().in_flight == in_flight
        assert bulkhead.statistics().waiting == 0


async def test_a_cancelled_turn_is_handed_on() -> None:
    """Those behind a waiter that gives up move up: nobody waits for a turn that nobody takes."""
    clock = FakeClock()
    limiter = r.RateLimiter(1, period=10, max_wait=100, clock=clock)
    await limiter.enter()
    served: list[tuple[int, float]] = []
    begun = clock.monotonic()

    async def one(number: int) -> None:
        await limiter.enter()
        served.append((number, clock.monotonic() - begun))

    tasks = [asyncio.ensure_future(one(number)) for number in range(3)]
    await clock.settle()
    tasks[0].cancel()
    await clock.run(25)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert served == [(1, 10.0), (2, 20.0)]
    assert limiter.statistics().waiting == 0


def test_threads_that_wait_are_counted() -> None:
    """`waiting` shows threads as it shows tasks."""
    limiter = r.RateLimiter(1, period=0.2, max_wait=5, threads=True)
    limiter.enter_plain()
    threads = [threading.Thread(target=limiter.enter_plain) for _ in range(2)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        most = max(most, limiter.statistics().waiting)
    for thread in threads:
        thread.join()

    assert most == 2


def test_a_permit_that_is_dropped_comes_back() -> None:
    """A permit that nobody tells how the call went doesn't keep a breaker half-open."""
    guard = breaker()
    for _ in range(5 * PLACES):
        permit = guard.permit()
        del permit
        gc.collect()
    with guard.permit():
        pass
    with pytest.raises(Boom), guard.permit():
        raise Boom

    assert _free_probes(guard) == PLACES - 1
    assert guard.statistics().failed_calls == 1


def test_each_use_has_its_own_outcome() -> None:
    """Two blocks of one policy that overlap in one thread end each as it ends, with its own duration."""
    clock, ended = FakeClock(), []
    guard = r.CircuitBreaker("x", clock=clock)
    guard.on(r.CallFailed, lambda event: ended.append(("failed", event.duration)))
    guard.on(r.CallSucceeded, lambda event: ended.append(("succeeded", event.duration)))

    def dependency() -> Iterator[int]:
        with guard:
            yield 1

    slow, fast = dependency(), dependency()
    next(slow)
    clock.advance(5)
    next(fast)
    with pytest.raises(Boom):
        slow.throw(Boom())  # type: ignore[attr-defined]
    next(fast, None)

    assert ended == [("failed", 5.0), ("succeeded", 0.0)]


def test_a_block_left_twice_is_an_error() -> None:
    """Leaving more often than entering is told, and gives nothing back that wasn't taken."""
    bulkhead = r.Bulkhead(1)
    with bulkhead:
        pass
    with pytest.raises(RuntimeError, match="more often"):
        bulkhead.__exit__(None, None, None)
    block = bulkhead.block()
    with block:
        pass
    with pytest.raises(RuntimeError, match="more often"):
        block.__exit__(None, None, None)

    assert bulkhead.statistics().in_flight == 0


def test_every_ending_has_a_case() -> None:
    """The endings above are the kinds that the verdicts tell apart."""
    kinds = {type(each) for each in ENDINGS.values()}

    assert {asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit, Killed} < kinds
