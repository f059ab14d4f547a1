"""The circuit breaker: its states, its counting, and what may never happen to a permit."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import backstay.resilience as r
from backstay.errors import ConfigError
from backstay.resilience.endpoints import circuit_breakers
from backstay.testing import FakeClock


class Boom(Exception):
    pass


async def fine() -> str:
    return "fine"


async def boom() -> str:
    raise Boom


def breaker(clock: FakeClock, **options: object) -> r.CircuitBreaker:
    defaults: dict[str, object] = {
        "window": r.last(4),
        "min_calls": 4,
        "wait_open": 5.0,
        "half_open": r.probes(2),
        "clock": clock,
    }
    return r.CircuitBreaker("payments", **(defaults | options))  # type: ignore[arg-type]


async def fail(guard: r.CircuitBreaker, times: int) -> None:
    for _ in range(times):
        with pytest.raises(Boom):
            await guard.call(boom)


async def opened(clock: FakeClock, **options: object) -> r.CircuitBreaker:
    guard = breaker(clock, **options)
    await fail(guard, 4)

    assert r.State.OPEN is guard.state

    return guard


async def test_opens_at_the_failure_rate() -> None:
    """Half of the calls failing is enough at a threshold of 50 percent, but not before min_calls."""
    guard = breaker(FakeClock())
    await guard.call(fine)
    await guard.call(fine)
    await fail(guard, 1)

    assert r.State.CLOSED is guard.state
    assert guard.statistics().failure_rate == -1.0

    await fail(guard, 1)

    assert r.State.OPEN is guard.state
    assert guard.statistics().failure_rate == 50.0


async def test_open_refuses_without_making_the_coroutine() -> None:
    """A refused call never starts, and tells how long to wait."""
    clock = FakeClock()
    guard = await opened(clock)
    made = []

    def never() -> object:
        made.append(1)
        return fine()

    clock.advance(2)
    with pytest.raises(r.CallNotPermitted, match="CircuitBreaker 'payments' is OPEN and does not permit") as refused:
        await guard.call(never)  # type: ignore[arg-type]

    assert made == []
    assert refused.value.retry_after == pytest.approx(3.0)


async def test_wait_is_over_only_strictly_after() -> None:
    """At exactly open + wait a call is still refused."""
    clock = FakeClock()
    guard = await opened(clock)
    clock.advance(5.0)
    with pytest.raises(r.CallNotPermitted):
        await guard.call(fine)
    clock.advance(0.001)

    assert await guard.call(fine) == "fine"
    assert r.State.HALF_OPEN is guard.state


async def test_probes_decide() -> None:
    """Good probes close it, bad ones open it again."""
    clock = FakeClock()
    guard = await opened(clock)
    clock.advance(6)
    await guard.call(fine)
    await guard.call(fine)

    assert r.State.CLOSED is guard.state

    guard = await opened(clock)
    clock.advance(6)
    await fail(guard, 2)

    assert r.State.OPEN is guard.state


async def test_half_open_admits_exactly_its_probes() -> None:
    """Of a thousand callers at once only the probes pass; the rest is refused."""
    clock = FakeClock()
    guard = await opened(clock, half_open=r.probes(5))
    clock.advance(6)
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    calls = [asyncio.ensure_future(guard.call(wait)) for _ in range(1000)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gate.set()
    results = await asyncio.gather(*calls, return_exceptions=True)

    assert [result for result in results if result is None] == [None] * 5
    assert sum(isinstance(result, r.CallNotPermitted) for result in results) == 995
    assert r.State.CLOSED is guard.state


async def test_a_cancelled_probe_gives_its_permit_back() -> None:
    """A cancelled probe is no verdict, and another call may take its place."""
    clock = FakeClock()
    guard = await opened(clock, half_open=r.probes(1))
    clock.advance(6)
    probe = asyncio.ensure_future(guard.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    with pytest.raises(r.CallNotPermitted):
        await guard.call(fine)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe

    assert r.State.HALF_OPEN is guard.state
    assert await guard.call(fine) == "fine"
    assert r.State.CLOSED is guard.state


async def test_a_hung_probe_does_not_wedge() -> None:
    """An undecided half-open visit ends in OPEN after max_wait."""
    clock = FakeClock()
    guard = await opened(clock, half_open=r.probes(1, max_wait=3.0))
    clock.advance(6)
    hung = asyncio.ensure_future(guard.call(asyncio.Event().wait))
    await asyncio.sleep(0)
    clock.advance(3.5)
    with pytest.raises(r.CallNotPermitted, match="is OPEN"):
        await guard.call(fine)
    clock.advance(6)

    assert await guard.call(fine) == "fine"

    hung.cancel()


async def test_a_stale_result_decides_nothing() -> None:
    """What began while closed says nothing about a half-open breaker."""
    clock = FakeClock()
    guard = breaker(clock, half_open=r.probes(1))
    stale = guard.permit()
    await fail(guard, 4)
    clock.advance(6)
    probe = guard.permit()
    stale.success()

    assert r.State.HALF_OPEN is guard.state

    with pytest.raises(r.CallNotPermitted):
        guard.permit()
    probe.failure(Boom())

    assert r.State.OPEN is guard.state


async def test_inner_refusals_are_not_counted() -> None:
    """A full bulkhead says nothing about the dependency."""
    guard = breaker(FakeClock())
    shut = r.pipeline(guard, r.Bulkhead(0))(fine)
    for _ in range(10):
        with pytest.raises(r.BulkheadFull):
            await shut()

    assert guard.statistics().buffered_calls == 0
    assert guard.statistics().ignored_total == 10


async def test_slow_calls_open_it() -> None:
    """Successes that take too long open the breaker; exactly the threshold is not slow."""
    clock = FakeClock()
    guard = breaker(clock, slow=r.over(1.0, rate=50))

    def take(seconds: float) -> None:
        permit = guard.permit()
        clock.advance(seconds)
        permit.success()

    for seconds in (1.0, 1.0, 1.25):
        take(seconds)

    assert r.State.CLOSED is guard.state

    take(2.0)

    assert r.State.OPEN is guard.state
    assert guard.statistics().slow_calls == 2


async def test_a_time_window_forgets() -> None:
    """Failures older than the window are forgotten."""
    clock = FakeClock()
    guard = breaker(clock, window=r.last(seconds=10), min_calls=4)
    await fail(guard, 3)
    clock.advance(11)
    await fail(guard, 3)

    assert r.State.CLOSED is guard.state
    assert guard.statistics().buffered_calls == 3


async def test_transitions_are_told_and_a_bad_listener_is_harmless() -> None:
    """Listeners hear every transition in order; their errors never reach the caller."""
    clock = FakeClock()
    guard = breaker(clock)
    heard: list[tuple[r.State, r.State]] = []

    def bad(event: r.StateTransition) -> None:
        raise RuntimeError

    guard.on(r.StateTransition, bad)
    guard.on(r.StateTransition, lambda event: heard.append((event.from_state, event.to_state)))
    await fail(guard, 4)
    clock.advance(6)
    await guard.call(fine)
    await guard.call(fine)

    assert heard == [
        (r.State.CLOSED, r.State.OPEN),
        (r.State.OPEN, r.State.HALF_OPEN),
        (r.State.HALF_OPEN, r.State.CLOSED),
    ]


async def test_by_hand() -> None:
    """Forced open refuses, disabled passes and counts nothing, a nonsensical move raises."""
    guard = breaker(FakeClock())
    with pytest.raises(r.IllegalTransition):
        guard.transition_to(r.State.HALF_OPEN)
    guard.transition_to(r.State.FORCED_OPEN)
    with pytest.raises(r.CallNotPermitted):
        await guard.call(fine)
    guard.transition_to(r.State.DISABLED)
    await fail(guard, 10)

    assert r.State.DISABLED is guard.state

    guard.reset()

    assert r.State.CLOSED is guard.state
    assert guard.statistics().buffered_calls == 0


def test_mistakes_are_named() -> None:
    """Every wrong field is reported at once."""
    with pytest.raises(ConfigError) as error:
        r.CircuitBreaker("x", failure_rate=0, wait_open=0, min_calls=0)

    assert len(error.value.problems) == 3


async def test_the_actuator_form() -> None:
    """What reads Resilience4j's actuator finds the same fields."""
    shown = circuit_breakers([await opened(FakeClock())])["circuitBreakers"]["payments"]

    assert shown["state"] == "OPEN"
    assert shown["failureRate"] == "100.0%"


STEPS = st.lists(
    st.sampled_from(["begin", "succeed", "fail", "slow", "release", "wait", "wait-long", "reset", "force"]), max_size=80
)


@settings(deadline=None)
@given(STEPS, st.booleans(), st.integers(1, 4))
def test_permits_and_counts_always_add_up(steps: list[str], timed: bool, probes: int) -> None:
    """Whatever happens in whatever order: counts stay within bounds, and half-open never has too many in flight."""
    clock = FakeClock()
    guard = breaker(
        clock, window=r.last(seconds=4) if timed else r.last(4), min_calls=3, half_open=r.probes(probes, max_wait=20)
    )
    flight: list[r.Permit] = []
    for step in steps:
        if step == "begin":
            try:
                flight.append(guard.permit())
            except r.CallNotPermitted:
                assert guard.state in (r.State.OPEN, r.State.HALF_OPEN, r.State.FORCED_OPEN)
        elif step in ("wait", "wait-long"):
            clock.advance(1 if step == "wait" else 30)
        elif step == "reset":
            guard.reset()
        elif step == "force":
            guard.transition_to(r.State.FORCED_OPEN)
        elif flight:
            permit = flight.pop(0)
            if step == "release":
                permit.release()
            elif step == "fail":
                permit.failure(Boom())
            else:
                clock.advance(100 if step == "slow" else 0)
                permit.success()
        now = guard.statistics()

        assert 0 <= now.slow_failed_calls <= min(now.failed_calls, now.slow_calls)
        assert max(now.failed_calls, now.slow_calls) <= now.buffered_calls

        if guard.state is r.State.HALF_OPEN:
            current = sum(1 for permit in flight if permit._era == guard.machine.generation)

            assert current + now.buffered_calls <= probes
