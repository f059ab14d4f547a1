"""Every form a policy guards: coroutine functions, plain ones, async generators, blocks, several threads and loops."""

import asyncio
import inspect
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest

import backstay.resilience as r
from backstay.testing import FakeClock


class Boom(Exception):
    pass


def breaker(**options: object) -> r.CircuitBreaker:
    return r.CircuitBreaker("x", window=r.last(4), min_calls=4, **options)  # type: ignore[arg-type]


# -- signatures -----------------------------------------------------------------------------------------------------


async def charge(order: str, /, amount: int, *, note: str = "none", tags: tuple[str, ...] = ()) -> str:
    """Charges."""
    return f"{order} {amount} {note} {tags}"


@pytest.mark.parametrize(
    "policy",
    [
        breaker(),
        r.Retry(2),
        r.Bulkhead(2),
        r.TimeLimiter(1.0),
        r.RateLimiter(100),
        r.fallback({Boom: lambda error: "no"}),
        r.pipeline(r.fallback({Boom: str}), r.Retry(2), breaker(), r.Bulkhead(2), r.TimeLimiter(1.0)),
        r.pipeline(),
    ],
    ids=lambda policy: type(policy).__name__,
)
async def test_signature_and_arguments_are_kept(policy: r.Policy) -> None:
    """A guarded function has the name, signature and defaults of its own, and refuses the same wrong arguments."""
    guarded = policy(charge)

    assert inspect.signature(guarded) == inspect.signature(charge)
    assert guarded.__name__ == "charge"
    assert inspect.iscoroutinefunction(guarded)
    assert await guarded("a", 1) == "a 1 none ()"
    assert await guarded("a", amount=2, note="x", tags=("y",)) == "a 2 x ('y',)"
    with pytest.raises(TypeError):
        await guarded("a", 1, unknown=1)  # type: ignore[call-arg]


async def test_what_has_no_fixed_signature_is_guarded_too() -> None:
    """Stars, methods, callable objects and parameters named like the guard's own variables all work."""

    async def stars(*args: int, **kwargs: int) -> int:
        return sum(args) + sum(kwargs.values())

    async def clash(machine: int, call: int = 2) -> int:
        return machine + call

    class Client:
        async def get(self, path: str = "/") -> str:
            return path

    guard = breaker()

    assert await guard(stars)(1, 2, x=3) == 6
    assert await guard(clash)(1) == 3
    assert await guard(clash)(1, call=5) == 6
    assert await guard(Client().get)() == "/"
    assert await guard(Client.get)(Client(), "/a") == "/a"


# -- blocks ---------------------------------------------------------------------------------------------------------


async def test_a_block_is_a_call() -> None:
    """`async with breaker:` counts its end, and each task has a block of its own."""
    guard = breaker()

    async def use(fails: bool) -> None:
        async with guard:
            await asyncio.sleep(0)
            if fails:
                raise Boom

    ended = await asyncio.gather(*(use(fails) for fails in (True, False, True, True)), return_exceptions=True)

    assert [type(each) for each in ended] == [Boom, type(None), Boom, Boom]
    assert guard.state is r.State.OPEN
    with pytest.raises(r.CallNotPermitted):
        async with guard:
            raise AssertionError("not reached")


async def test_blocks_nest() -> None:
    """The same bulkhead twice in one task takes two places and gives both back."""
    bulkhead = r.Bulkhead(2)
    async with bulkhead, bulkhead:
        assert bulkhead.in_flight == 2
        with pytest.raises(r.BulkheadFull):
            async with bulkhead:
                pass

    assert bulkhead.in_flight == 0


def test_a_plain_block() -> None:
    """`with breaker:` needs no event loop; a permit that was told is not counted twice."""
    guard = breaker()
    with guard as permit:
        permit.failure(Boom())
    with guard, pytest.raises(TypeError):
        r.Retry(2).__enter__()

    assert guard.statistics().failed_total == 1
    assert guard.statistics().succeeded_total == 1


async def test_a_pipeline_around_a_block() -> None:
    """All layers that can guard a block do; a time-out inside is seen by the breaker outside."""
    pipe = r.pipeline(breaker(), r.RateLimiter(10), r.Bulkhead(1), r.TimeLimiter(0.01))
    with pytest.raises(TimeoutError):
        async with pipe:
            await asyncio.Event().wait()

    assert pipe.breaker is not None
    assert pipe.breaker.statistics().failed_total == 1

    with pytest.raises(TypeError, match="can't guard a block"):
        async with r.pipeline(r.Retry(2)):
            pass


# -- async generators -----------------------------------------------------------------------------------------------


async def numbers(count: int, fails: bool = False) -> AsyncIterator[int]:
    for number in range(count):
        yield number
    if fails:
        raise Boom


async def test_async_generators_are_guarded() -> None:
    """One call from the first item to the end; leaving early says nothing; an open breaker refuses the first item."""
    guard = breaker()
    guarded = guard(numbers)

    assert [number async for number in guarded(3)] == [0, 1, 2]

    items = guarded(3)
    await anext(items)
    await items.aclose()  # type: ignore[attr-defined]
    with pytest.raises(Boom):
        _ = [number async for number in guarded(1, fails=True)]

    now = guard.statistics()

    assert (now.succeeded_total, now.failed_total, now.buffered_calls) == (1, 1, 2)

    guard.force_open()
    with pytest.raises(r.CallNotPermitted):
        await anext(guarded(1))


async def test_a_generator_holds_its_place() -> None:
    """A bulkhead's place is taken until the generator ends, or is closed."""
    bulkhead = r.Bulkhead(1)
    items = bulkhead(numbers)(2)
    await anext(items)
    with pytest.raises(r.BulkheadFull):
        await anext(bulkhead(numbers)(2))
    await items.aclose()  # type: ignore[attr-defined]

    assert bulkhead.in_flight == 0


async def test_each_item_of_a_generator_has_its_time() -> None:
    """A time limiter ends a generator whose next item doesn't come."""

    async def slow() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()
        yield 2

    items = r.pipeline(breaker(), r.TimeLimiter(0.01))(slow)()

    assert await anext(items) == 1
    with pytest.raises(TimeoutError):
        await anext(items)


def test_what_cannot_guard_a_generator_says_so() -> None:
    """A retry can't take back what was yielded: a TypeError at decoration, not silence."""
    with pytest.raises(TypeError, match="async generator"):
        r.Retry(2)(numbers)


# -- plain functions and threads ------------------------------------------------------------------------------------


def test_a_plain_function_needs_no_loop() -> None:
    """The whole pipeline around a plain function: retried, counted, answered for."""
    clock, made = FakeClock(), 0
    guard = breaker(clock=clock)

    @r.pipeline(
        r.fallback({Boom: lambda error: "down", r.Rejected: lambda error: "refused"}),
        r.Retry(2, wait=1, clock=clock),
        guard,
        r.Bulkhead(1),
        r.RateLimiter(10, clock=clock),
    )
    def call() -> str:
        nonlocal made
        made += 1
        raise Boom

    assert [call(), call(), call()] == ["down", "down", "refused"]
    assert made == 4
    assert guard.state is r.State.OPEN


def test_the_decorator_of_a_plain_function() -> None:
    """`@circuit_breaker(...)` on a plain function is thread-safe by itself."""

    @r.circuit_breaker("x", failure_rate=50)
    def call() -> int:
        return 1

    assert call() == 1


def test_many_threads_one_breaker() -> None:
    """Eight threads count every call, and half-open never admits more than its probes."""
    clock = FakeClock()
    guard = r.CircuitBreaker("x", window=r.last(100), failure_rate=100, half_open=r.probes(5), wait_open=1, clock=clock)
    guarded = guard(lambda: 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: [guarded() for _ in range(500)], range(8)))

    assert guard.statistics().succeeded_total == 4000

    guard.transition_to(r.State.OPEN)
    clock.advance(2)
    admitted, gate = [], threading.Event()

    def wait() -> None:
        admitted.append(1)
        gate.wait(10)

    held = guard(wait)

    def attempt(_: int) -> bool:
        try:
            held()
        except r.CallNotPermitted:
            return False
        return True

    with ThreadPoolExecutor(20) as pool:
        tries = [pool.submit(attempt, number) for number in range(20)]
        until = time.monotonic() + 10
        while sum(each.done() for each in tries) < 15 and time.monotonic() < until:
            time.sleep(0.001)
        gate.set()
        passed = [each.result() for each in tries]

    assert sum(passed) == len(admitted) == 5
    assert guard.state is r.State.CLOSED


def test_a_bulkhead_between_threads() -> None:
    """Threads wait their turn for a place; too many are refused."""
    bulkhead, peak, running, lock = r.Bulkhead(2, max_wait=5), 0, 0, threading.Lock()

    @bulkhead
    def work() -> None:
        nonlocal peak, running
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.002)
        with lock:
            running -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: work(), range(20)))

    assert peak == 2
    assert bulkhead.statistics().in_flight == 0


def test_several_event_loops_share_policies() -> None:
    """Two loops in two threads use one pipeline: time-outs fire in each, and the shared bulkhead wakes across them."""
    limiter, bulkhead = r.TimeLimiter(0.2), r.Bulkhead(1, max_wait=20, threads=True)
    guarded = r.pipeline(r.CircuitBreaker("x", threads=True), bulkhead, limiter)(asyncio.sleep)

    async def use() -> int:
        ended = 0
        for _ in range(3):
            await guarded(0)
            try:
                await guarded(10)
            except TimeoutError:
                ended += 1
        return ended

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda _: asyncio.run(use()), range(2))) == [3, 3]

    assert bulkhead.statistics().in_flight == 0
    assert limiter.statistics().timeout == 6


# -- blocking code in threads ---------------------------------------------------------------------------------------


async def test_blocking_code_runs_in_a_bounded_pool() -> None:
    """As many threads as allowed, a queue behind them, and a refusal beyond; the loop stays free."""
    gate = threading.Event()
    with r.ThreadPoolBulkhead(2, queue=1, name="files") as pool:
        read = pool(lambda: gate.wait(10))
        calls = [asyncio.ensure_future(read()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(r.BulkheadFull):
            await read()
        calls[0].cancel()
        await asyncio.sleep(0)
        with pytest.raises(r.BulkheadFull):  # its thread runs on
            await read()
        gate.set()

        assert await asyncio.gather(*calls[1:]) == [True, True]
        assert pool.statistics().rejected_total == 2


async def test_a_pipeline_isolates_blocking_code() -> None:
    """With a thread pool innermost, a plain function becomes a coroutine function inside the other layers."""
    with r.ThreadPoolBulkhead(1) as pool:
        guarded = r.pipeline(breaker(), r.TimeLimiter(0.02), pool)(time.sleep)
        with pytest.raises(TimeoutError):
            await guarded(0.2)
