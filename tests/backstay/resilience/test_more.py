"""Waits, budgets, hints on the wire, hot changes, injected faults, and what a breaker costs in memory."""

import asyncio
import gc
import random
import tracemalloc
from datetime import timedelta
from typing import Any

import pytest

import backstay.resilience as r
from backstay.errors import ConfigError
from backstay.testing import FakeClock, eventually


class Boom(Exception):
    pass


async def boom() -> None:
    raise Boom


def opened(clock: FakeClock, **options: Any) -> r.CircuitBreaker:
    guard = r.CircuitBreaker("x", **({"window": r.last(1), "min_calls": 1, "wait_open": 5} | options), clock=clock)
    guard.permit().failure(Boom())
    return guard


def test_waits_grow_with_each_opening_in_a_row() -> None:
    """The wait is a function of how often it opened without closing between."""
    clock = FakeClock()
    guard = opened(clock, wait_open=r.exponential(1, cap=60, jitter=0), half_open=r.probes(1))
    for wait in (1, 2, 4):
        clock.advance(wait)
        with pytest.raises(r.CallNotPermitted):
            guard.permit()
        clock.advance(0.5)
        guard.permit().failure(Boom())
    clock.advance(8.5)
    guard.permit().success()
    guard.permit().failure(Boom())
    clock.advance(1.5)
    guard.permit().success()

    assert guard.state is r.State.CLOSED


def test_it_begins_where_it_is_told() -> None:
    """An initial state other than CLOSED holds from the first call on."""
    guard = r.CircuitBreaker("x", initial_state=r.State.FORCED_OPEN)
    with pytest.raises(r.CallNotPermitted, match="FORCED_OPEN"):
        guard.permit()


def test_an_undecided_visit_may_end_closed() -> None:
    """What follows a half-open visit without a verdict is a setting; the state moves without a call."""
    clock = FakeClock()
    guard = opened(clock, half_open=r.probes(1, max_wait=2, then=r.State.CLOSED))
    clock.advance(6)
    guard.permit()
    clock.advance(3)

    assert guard.state is r.State.CLOSED


async def test_automatic_half_open_needs_no_call() -> None:
    """With an event loop, the transition is told when its time comes, though nobody asks."""
    moved: list[r.State] = []
    guard = r.CircuitBreaker("x", window=r.last(1), min_calls=1, wait_open=0.01, auto_half_open=True)
    guard.on(r.StateTransition, lambda event: moved.append(event.to_state))
    guard.permit().failure(Boom())
    await eventually(lambda: moved == [r.State.OPEN, r.State.HALF_OPEN])


def test_a_reset_leaves_no_timer_behind() -> None:
    """A breaker that is reset while open stays closed when the old wait is over (defect D2 of Resilience4j)."""
    clock = FakeClock()
    guard = opened(clock, auto_half_open=True)
    guard.reset()
    clock.advance(10)

    assert guard.state is r.State.CLOSED


def test_a_result_may_ask_to_stay_away() -> None:
    """`open_if` opens at once for as long as the answer says (defect D1: Resilience4j's form never opens again)."""
    clock = FakeClock()
    guard = r.CircuitBreaker(
        "x", open_if=lambda answer: answer.get("retry-after") if isinstance(answer, dict) else None, clock=clock
    )
    guard.permit().success({"retry-after": 3.0})
    with pytest.raises(r.CallNotPermitted) as refused:
        guard.permit()

    assert refused.value.retry_after == 3.0

    clock.advance(3.5)
    guard.permit().success({})

    assert guard.state is r.State.HALF_OPEN


def test_a_live_breaker_is_reconfigured() -> None:
    """A change keeps what was counted, is checked before anything changes, and decides from the next call on."""
    guard = r.CircuitBreaker("x", window=r.last(10), min_calls=4, failure_rate=90)
    for fails in (True, True, False):
        guard.permit().failure(Boom()) if fails else guard.permit().success()
    with pytest.raises(ConfigError, match="failure_rate: 0"):
        guard.reconfigure(failure_rate=0)
    guard.reconfigure(window=r.last(5), failure_rate=50)

    assert guard.statistics().buffered_calls == 3

    guard.permit().success()

    assert guard.state is r.State.OPEN


def test_counted_late_is_counted_right() -> None:
    """Successes that were only counted are in the window by the time anybody looks, and push old failures out."""
    guard = r.CircuitBreaker("x", window=r.last(10), min_calls=4, failure_rate=50)
    run = guard(asyncio.sleep)
    guard.permit().failure(Boom())

    async def calls(count: int) -> None:
        for _ in range(count):
            await run(0)

    asyncio.run(calls(9))

    assert guard.statistics().failed_calls == 1
    assert guard.statistics().buffered_calls == 10

    asyncio.run(calls(1))

    assert guard.statistics().failed_calls == 0
    assert guard.statistics().buffered_calls == 10
    assert guard.statistics().succeeded_total == 10


async def test_a_success_of_an_older_era_fills_no_newer_window() -> None:
    """A call that outlives a reset is not among the calls after it."""
    guard, gate = r.CircuitBreaker("x"), asyncio.Event()
    late = asyncio.ensure_future(guard.call(gate.wait))
    await asyncio.sleep(0)
    guard.reset()
    gate.set()
    await late

    assert guard.statistics().buffered_calls == 0
    assert guard.statistics().succeeded_total == 1


async def test_a_cancelled_straggler_mints_no_probe() -> None:
    """A call of a former state that is cancelled in half-open gives nothing back (defect D3)."""
    clock = FakeClock()
    guard = r.CircuitBreaker("x", window=r.last(1), min_calls=1, wait_open=1, half_open=r.probes(1), clock=clock)
    straggler = guard.permit()
    guard.permit().failure(Boom())
    clock.advance(2)
    probe = guard.permit()
    straggler.failure(asyncio.CancelledError())
    with pytest.raises(r.CallNotPermitted):
        guard.permit()
    probe.success()


async def test_system_errors_leak_no_probe() -> None:
    """Whatever ends a probe, its permit comes back or is used (defect D5)."""
    clock = FakeClock()
    guard = opened(clock, half_open=r.probes(1))
    clock.advance(6)

    async def leave() -> None:
        raise SystemExit

    for _ in range(3):
        with pytest.raises(SystemExit):
            await guard.call(leave)

    assert guard.state is r.State.HALF_OPEN


# -- retry ----------------------------------------------------------------------------------------------------------


class Busy(Exception):
    retry_after = 3.0


async def test_retry_after_is_honoured() -> None:
    """An error that says when to come back is not asked again sooner."""
    clock, waits = FakeClock(), []
    retry = r.Retry(2, wait=0.1, clock=clock)
    retry.on(r.Retrying, lambda event: waits.append(event.wait))

    async def busy() -> None:
        raise Busy

    task = asyncio.ensure_future(retry.call(busy))
    await clock.run(5)
    with pytest.raises(Busy):
        await task

    assert waits == [3.0]


async def test_no_repetition_of_what_is_a_repetition_already() -> None:
    """In a repeated request, or against a server that sheds load, nothing is retried; attempts know their number."""
    seen: list[int] = []

    async def fail() -> None:
        seen.append(r.current_attempt())
        raise Boom

    retry = r.Retry(3, wait=0)
    with pytest.raises(Boom):
        await retry.call(fail)

    assert seen == [1, 2, 3]
    assert r.current_attempt() == 1

    with r.repeated_request(), pytest.raises(Boom):
        await retry.call(fail)

    assert len(seen) == 4

    async def shed() -> None:
        seen.append(0)
        error = Boom()
        error.do_not_retry = True  # type: ignore[attr-defined]
        raise error

    with pytest.raises(Boom):
        await retry.call(shed)

    assert len(seen) == 5


async def test_a_spent_budget_raises_the_calls_own_error() -> None:
    """With no retry left in the budget the dependency's error comes through, noted and counted: a breaker sees it."""
    heard: list[r.BudgetSpent] = []
    retry = r.Retry(3, wait=0, budget=r.Budget(0.0, minimum=0.0, clock=FakeClock()))
    retry.on(r.BudgetSpent, heard.append)
    guard = r.CircuitBreaker("x")
    with pytest.raises(Boom) as error:
        await r.pipeline(guard, retry)(boom)()

    assert error.value.__notes__ == ["Retry 'retry' has no budget left for another attempt"]
    assert len(heard) == 1
    assert retry.statistics().budget_exhausted_total == 1
    assert guard.statistics().failed_total == 1


def test_waits_are_checked_and_may_be_random() -> None:
    """Durations may be timedeltas; a randomised wait stays in its bounds."""
    wait = r.randomised(timedelta(seconds=2), jitter=0.25, rng=random.Random(3))

    assert all(1.5 <= wait(attempt) <= 2.5 for attempt in range(1, 50))
    assert r.fixed(timedelta(milliseconds=5))(9) == 0.005
    assert r.TimeLimiter(timedelta(seconds=2)).timeout == 2.0
    assert r.CircuitBreaker("x", wait_open=timedelta(minutes=1)).config.wait(1) == 60.0


# -- rate limiter ---------------------------------------------------------------------------------------------------


async def test_a_cancelled_waiter_gives_its_turn_back() -> None:
    """Its reservation is free for others (defect D12)."""
    clock = FakeClock()
    limiter = r.RateLimiter(1, period=10, max_wait=15, clock=clock)
    await limiter.call(asyncio.sleep, 0)
    waiting = asyncio.ensure_future(limiter.call(asyncio.sleep, 0))
    await asyncio.sleep(0)

    assert limiter.statistics().waiting == 1
    assert limiter.statistics().available_permissions == -1

    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)

    assert limiter.statistics().available_permissions == 0


def test_a_drained_limiter_refuses_until_the_next_period() -> None:
    """Whoever hears that the other side has had enough takes all permissions of this period."""
    clock = FakeClock()
    limiter = r.RateLimiter(3, period=10, clock=clock)
    clock.advance(4)
    limiter.drain()
    with pytest.raises(r.RateLimited) as refused:
        limiter.enter_plain()

    assert refused.value.retry_after == pytest.approx(6)

    clock.advance(6)
    limiter.enter_plain()


# -- injected faults ------------------------------------------------------------------------------------------------


async def test_faults_are_injected_at_a_rate() -> None:
    """A share of the calls fails, only while it is switched on; the breaker outside opens by it."""
    on = False
    chaos = r.FaultInjection(50, fault=Boom, enabled=lambda: on, rng=random.Random(1))
    guard = r.CircuitBreaker("x", window=r.last(20), min_calls=20, failure_rate=30)
    guarded = r.pipeline(guard, chaos)(asyncio.sleep)
    for _ in range(20):
        await guarded(0)

    assert chaos.injected == 0

    on = True
    ended = await asyncio.gather(*(guarded(0) for _ in range(20)), return_exceptions=True)

    assert any(isinstance(each, Boom) for each in ended)
    assert guard.state is r.State.OPEN


async def test_latency_and_outcome() -> None:
    """It waits by its clock, or answers in place of the call; plain functions too."""
    clock = FakeClock()
    slow = r.FaultInjection(latency=2.0, clock=clock)
    waiting = asyncio.ensure_future(slow.call(asyncio.sleep, 0, "late"))
    await clock.run(2)

    assert await waiting == "late"
    assert await r.FaultInjection(outcome=lambda: 7).call(asyncio.sleep, 0) == 7
    assert r.FaultInjection(latency=1.0, clock=clock).call_plain(lambda: "plain") == "plain"
    for wrong in ({}, {"fault": Boom, "outcome": int}, {"rate": 101, "fault": Boom}, {"latency": 0}):
        with pytest.raises(ConfigError):
            r.FaultInjection(**wrong)  # type: ignore[arg-type]


# -- configuration, memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"failure_rate": "50"}, "failure_rate: '50' is not a percentage"),
        ({"failure_rate": float("nan")}, "failure_rate: nan"),
        ({"min_calls": 2.5}, "min_calls: 2.5 is not a whole number"),
        ({"wait_open": float("inf")}, "wait_open: inf"),
        ({"window": 100}, r"window: 100; write last\(100\)"),
        ({"record": (int,)}, "<class 'int'> is not an exception type"),
        ({"fail_result": 3}, "fail_result: 3 is not a function"),
        ({"half_open": r.Probes(1, then=r.State.DISABLED)}, "half_open.then"),
        ({"failure_rat": 50}, "there are: failure_rate"),
    ],
)
def test_every_wrong_field_is_named(options: dict[str, Any], said: str) -> None:
    """A mistake is an error at construction, with the field, the value and what is allowed."""
    with pytest.raises(ConfigError, match=said):
        r.CircuitBreaker("x", **options)


def test_a_breaker_is_small() -> None:
    """With a window of a hundred calls it takes at most 2.5 KB."""
    r.CircuitBreaker("warm up").permit().success()
    gc.collect()
    tracemalloc.start()
    try:
        config = r.CircuitBreakerConfig()
        before = tracemalloc.get_traced_memory()[0]
        kept = [r.CircuitBreaker("x", config) for _ in range(200)]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    finally:
        tracemalloc.stop()

    assert each <= 2560


async def test_many_callers_few_probes_one_of_them_hanging() -> None:
    """Of a thousand callers five are admitted; the one that hangs doesn't keep the breaker half-open for ever."""
    clock = FakeClock()
    guard = r.CircuitBreaker("x", wait_open=5, half_open=r.probes(5, max_wait=3), clock=clock)
    guard.transition_to(r.State.OPEN)
    clock.advance(6)
    started, hang = 0, asyncio.Event()

    async def call() -> None:
        nonlocal started
        started += 1
        if started == 5:
            await hang.wait()

    calls = [asyncio.ensure_future(guard.call(call)) for _ in range(1000)]
    for _ in range(3):
        await asyncio.sleep(0)

    assert started == 5
    assert sum(task.done() for task in calls) == 999
    assert guard.state is r.State.HALF_OPEN

    clock.advance(4)

    assert guard.state is r.State.OPEN

    hang.set()
    await asyncio.gather(*calls, return_exceptions=True)

    assert guard.state is r.State.OPEN
