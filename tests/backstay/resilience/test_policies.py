"""Retry, budget, bulkhead, limiters, fallback, deadline, and all of them together."""

import asyncio
import random

import pytest

import backstay.resilience as r
from backstay.errors import ConfigError
from backstay.testing import FakeClock


class Flaky:
    """Fails some times, then succeeds."""

    def __init__(self, failures: int, error: type[Exception] = ConnectionError) -> None:
        self.failures = failures
        self.error = error
        self.calls = 0

    async def __call__(self, answer: str = "fine") -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return answer


class ManualSleep(FakeClock):
    """A clock whose sleep ends at once and is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)


async def test_retry_waits_between_attempts_only() -> None:
    """k attempts sleep k − 1 times."""
    clock, flaky = ManualSleep(), Flaky(2)
    retry = r.Retry(3, wait=r.exponential(0.1, jitter=0), clock=clock)

    assert await retry.call(flaky, "yes") == "yes"
    assert clock.slept == pytest.approx([0.1, 0.2])
    assert retry.statistics().successful_with_retry == 1


async def test_retry_raises_the_original_error() -> None:
    """When all attempts failed, the last error comes through unchanged."""
    flaky = Flaky(9)
    with pytest.raises(ConnectionError):
        await r.Retry(3, wait=0.0, clock=ManualSleep()).call(flaky)

    assert flaky.calls == 3


async def test_retry_never_repeats_a_refusal() -> None:
    """A `Rejected` of an inner layer isn't retried, nor is what isn't named."""
    refusing = Flaky(9, r.BulkheadFull)
    with pytest.raises(r.BulkheadFull):
        await r.Retry(3, wait=0.0).call(refusing)

    assert refusing.calls == 1

    other = Flaky(9, KeyError)
    with pytest.raises(KeyError):
        await r.Retry(3, wait=0.0, on=(ConnectionError,)).call(other)

    assert other.calls == 1


async def test_retry_by_result() -> None:
    """A result can be worth another attempt; the last one is returned, or an error raised when asked for."""
    answers = iter([503, 503, 200])

    async def ask() -> int:
        return next(answers)

    retry = r.Retry(3, wait=0.0, retry_result=lambda status: status == 503)

    assert await retry.call(ask) == 200

    answers = iter([503] * 9)

    assert await retry.call(ask) == 503

    with pytest.raises(r.MaxRetriesExceeded):
        await r.Retry(2, wait=0.0, retry_result=lambda status: status == 503, fail_after=True).call(ask)


async def test_a_retry_that_cannot_finish_is_not_begun() -> None:
    """With less time left than the wait, the error is raised at once."""
    flaky = Flaky(1)
    with r.deadline(0.05), pytest.raises(ConnectionError):
        await r.Retry(3, wait=10.0).call(flaky)

    assert flaky.calls == 1


async def test_the_budget_keeps_retries_from_multiplying() -> None:
    """With everything failing, retries stay at the budgeted share of calls."""
    clock = FakeClock()
    budget = r.Budget(0.1, minimum=0.0, clock=clock)
    retry = r.Retry(3, wait=0.0, budget=budget)
    made = 0

    async def down() -> None:
        nonlocal made
        made += 1
        raise ConnectionError

    for _ in range(200):
        with pytest.raises((ConnectionError, r.BudgetExhausted)):
            await retry.call(down)

    assert 200 < made <= 220


def test_waits_grow_to_their_cap() -> None:
    """Exponential waits double up to the cap and stay inside their jitter."""
    wait = r.exponential(0.1, cap=1.0, jitter=0)

    assert [round(wait(attempt), 3) for attempt in (1, 2, 3, 4, 5, 100)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]

    shaky = r.exponential(1.0, cap=8.0, jitter=0.5, rng=random.Random(7))

    assert all(0.5 <= shaky(1) <= 1.5 for _ in range(100))


async def test_bulkhead_bounds_and_hands_over_in_order() -> None:
    """No more than its calls in flight; waiters get the place in the order they came."""
    bulkhead = r.Bulkhead(2, max_wait=5)
    running = peak = 0
    order: list[int] = []
    gates = [asyncio.Event() for _ in range(6)]

    async def work(number: int) -> None:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        order.append(number)
        await gates[number].wait()
        running -= 1

    tasks = [asyncio.ensure_future(bulkhead.call(work, number)) for number in range(6)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    for gate in gates:
        gate.set()
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)

    assert peak == 2
    assert order == [0, 1, 2, 4, 5]
    assert bulkhead.statistics().in_flight == 0
    assert bulkhead.statistics().waiting == 0


async def test_bulkhead_refuses_after_its_wait() -> None:
    """A caller that gets no place in time is refused, and the place isn't lost."""
    bulkhead = r.Bulkhead(1, max_wait=0.01)
    gate = asyncio.Event()
    first = asyncio.ensure_future(bulkhead.call(gate.wait))
    await asyncio.sleep(0)
    with pytest.raises(r.BulkheadFull):
        await bulkhead.call(gate.wait)
    gate.set()
    await first

    assert await bulkhead.call(gate.wait)


async def test_time_limiter_raises_its_own_timeout_only() -> None:
    """Its own time-out has its message; the function's own TimeoutError comes through as it is."""

    async def hang() -> None:
        await asyncio.Event().wait()

    async def own() -> None:
        raise TimeoutError("mine")

    limiter = r.TimeLimiter(0.01, name="slow")
    with pytest.raises(TimeoutError, match="TimeLimiter 'slow' recorded a timeout exception"):
        await limiter.call(hang)
    with pytest.raises(TimeoutError, match="mine"):
        await limiter.call(own)

    assert limiter.statistics() == r.TimeLimiterStatistics(successful=0, failed=1, timeout=1)


async def test_no_call_after_the_deadline() -> None:
    """A passed deadline refuses the call before it starts; a near one shortens the limit."""
    flaky = Flaky(0)
    with r.deadline(-1), pytest.raises(r.DeadlineExceeded):
        await r.TimeLimiter(1.0).call(flaky)

    assert flaky.calls == 0

    with r.deadline(0.01), pytest.raises(TimeoutError):
        await r.TimeLimiter(30.0).call(asyncio.Event().wait)


def test_an_inner_deadline_never_extends_the_outer() -> None:
    """Nested deadlines keep the earliest."""
    with r.deadline(1.0):
        with r.deadline(50.0):
            left = r.remaining()

        assert left is not None
        assert left <= 1.0

    assert r.remaining() is None


def test_rate_limiter_counts_in_cycles() -> None:
    """So many in a period; the next period starts at its boundary, and reservations run ahead."""
    clock = FakeClock()
    limiter = r.RateLimiter(2, period=1.0, max_wait=1.5, clock=clock)
    born = clock.monotonic()

    assert limiter.reserve(born) == 0.0
    assert limiter.reserve(born) == 0.0
    assert limiter.reserve(born + 0.4) == pytest.approx(0.6)
    assert limiter.reserve(born + 0.4) == pytest.approx(0.6)
    assert limiter.reserve(born + 0.4) is None
    assert limiter.reserve(born + 0.6) == pytest.approx(1.4)


async def test_fallback_picks_the_nearest_superclass() -> None:
    """The handler of the most specific type answers; an error without one comes through."""

    async def down(kind: type[Exception]) -> str:
        raise kind

    guarded = r.fallback({OSError: lambda error, kind: "os", ConnectionError: lambda error, kind: "connection"})(down)

    assert await guarded(ConnectionRefusedError) == "connection"
    assert await guarded(PermissionError) == "os"
    with pytest.raises(KeyError):
        await guarded(KeyError)


async def test_the_whole_pipeline() -> None:
    """Fallback, retry, breaker, bulkhead and time limiter together: down, open, recovered."""
    clock = ManualSleep()
    pipe = r.pipeline(
        r.Fallback({r.Rejected: lambda error, *_: "refused", ConnectionError: lambda error, *_: "down"}),
        r.Retry(2, wait=0.05, clock=clock),
        r.CircuitBreaker("payments", window=r.last(4), min_calls=4, wait_open=5, half_open=r.probes(1), clock=clock),
        r.Bulkhead(5),
        r.TimeLimiter(1.0),
    )
    flaky = Flaky(4)
    guarded = pipe(flaky)

    assert [await guarded() for _ in range(4)] == ["down", "down", "refused", "refused"]
    assert flaky.calls == 4

    clock.advance(6)

    assert await guarded() == "fine"
    assert pipe.breaker is not None
    assert pipe.breaker.state is r.State.CLOSED
    assert pipe.explain() == []
    assert repr(pipe).startswith("Fallback(")


def test_known_bad_orders_are_explained() -> None:
    """A time limiter around a breaker, or a fallback inside a retry, is pointed out."""
    wrong = r.pipeline(r.TimeLimiter(1.0), r.Retry(2), r.CircuitBreaker("x"), r.fallback({OSError: lambda error: None}))

    assert len(wrong.explain()) == 3


def test_mistakes_are_refused_when_built() -> None:
    """No policy that silently does nothing."""
    for build in (
        lambda: r.Retry(0),
        lambda: r.Bulkhead(-1),
        lambda: r.TimeLimiter(0),
        lambda: r.RateLimiter(0),
        lambda: r.Fallback({}),
        lambda: r.Budget(2.0),
        lambda: r.last(0),
        lambda: r.exponential(1.0, cap=0.5),
        lambda: r.pipeline("no policy"),  # type: ignore[arg-type]
    ):
        with pytest.raises(ConfigError):
            build()
