"""What the ending of a call says, whose time-out it was, and what functions and listeners of users may do meanwhile."""

import asyncio
import contextlib
import functools
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from typing import Any
from unittest.mock import Mock

import pytest

import backstay.resilience as r
from backstay.errors import ConfigError
from backstay.resilience.verdict import verdict_on
from backstay.testing import FakeClock


class Boom(Exception):
    pass


class Killed(BaseException):
    pass


def breaker(**options: Any) -> r.CircuitBreaker:
    options = {"window": r.last(4), "min_calls": 4, "half_open": r.probes(1)} | options
    return r.CircuitBreaker("x", **options)


def fail() -> None:
    raise Boom


def counts(guard: r.CircuitBreaker) -> tuple[int, int, int]:
    now = guard.statistics()
    return now.succeeded_total, now.failed_total, now.ignored_total


# -- verdicts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (Boom(), r.Verdict.FAILURE),
        (ValueError(), r.Verdict.IGNORED),
        (KeyError(), r.Verdict.SUCCESS),
        (r.BulkheadFull("x"), r.Verdict.IGNORED),
        (asyncio.CancelledError(), r.Verdict.GIVEN_BACK),
        (KeyboardInterrupt(), r.Verdict.GIVEN_BACK),
        (Killed(), r.Verdict.GIVEN_BACK),
        (r.Misused("no"), r.Verdict.GIVEN_BACK),
        (r.DeadlineTimeout("late"), r.Verdict.GIVEN_BACK),
        (ExceptionGroup("", [KeyError(), Boom()]), r.Verdict.FAILURE),
        (ExceptionGroup("", [KeyError(), ExceptionGroup("", [ValueError()])]), r.Verdict.IGNORED),
        (ExceptionGroup("", [KeyError(), KeyError()]), r.Verdict.SUCCESS),
        (BaseExceptionGroup("", [KeyboardInterrupt(), Boom()]), r.Verdict.FAILURE),
        (BaseExceptionGroup("", [Killed(), KeyError()]), r.Verdict.GIVEN_BACK),
    ],
    ids=repr,
)
def test_what_an_ending_says(error: BaseException, verdict: r.Verdict) -> None:
    """An ending that is no Exception is never a success; a group counts by its members."""
    assert verdict_on(error, record=(Boom,), ignore=(ValueError,)) is verdict


def test_what_is_named_counts() -> None:
    """A BaseException that `record` names is a failure, and so is a group that it names."""
    assert verdict_on(Killed(), record=(Killed,), ignore=()) is r.Verdict.FAILURE
    assert verdict_on(ExceptionGroup("", [Boom()]), record=(ExceptionGroup,), ignore=(Boom,)) is r.Verdict.FAILURE


def test_an_impatient_caller_counts_only_against_what_is_slow() -> None:
    """A deadline that ends a call is the dependency's failure only once the call was slow by the breaker's measure."""
    clock = FakeClock()
    guard = breaker(slow=r.over(2.0), clock=clock)
    for seconds in (0.1, 3.0):
        permit = guard.permit()
        clock.advance(seconds)
        permit.failure(r.DeadlineTimeout("late"))

    assert guard.statistics().failed_total == 1
    assert guard.statistics().deadline_exceeded_total == 1


async def test_groups_are_retried_and_answered_by_their_members() -> None:
    """A task group's error is retried if each of its errors is worth it, and answered if each has a handler."""
    made = 0

    async def call(*errors: Exception) -> None:
        nonlocal made
        made += 1
        async with asyncio.TaskGroup() as group:
            for error in errors:
                group.create_task(throw(error))

    async def throw(error: Exception) -> None:
        raise error

    retried = r.Retry(3, wait=0, on=(Boom,))(call)
    for errors, attempts in (((Boom(),), 3), ((Boom(), KeyError()), 1)):
        made = 0
        with pytest.raises(ExceptionGroup):
            await retried(*errors)

        assert made == attempts

    answered = r.fallback({Boom: lambda error, *_: len(error.exceptions)})(call)

    assert await answered(Boom(), Boom()) == 2
    with pytest.raises(ExceptionGroup):
        await answered(Boom(), KeyError())


# -- forms that can't be guarded ------------------------------------------------------------------------------------


def test_plain_generators_are_guarded() -> None:
    """A generator counts as it ends, forwards what is sent, and is refused by an open breaker."""
    guard = breaker()

    @guard
    def items(count: int) -> Iterator[int]:
        sent = yield count
        if sent:
            yield sent
        raise Boom

    use: Any = items(1)

    assert next(use) == 1
    assert use.send(7) == 7
    with pytest.raises(Boom):
        next(use)
    with contextlib.suppress(Boom, r.CallNotPermitted):
        for _ in range(4):
            with contextlib.suppress(Boom):
                list(items(1))

    assert guard.state is r.State.OPEN
    with pytest.raises(r.CallNotPermitted):
        next(items(1))


async def test_an_async_generator_gets_what_is_sent_and_thrown() -> None:
    """`asend` and `athrow` reach the guarded generator, through several layers."""

    async def items() -> AsyncIterator[Any]:
        try:
            got = yield 1
            yield got
        except Boom:
            yield "caught"

    guarded = r.pipeline(breaker(), r.Bulkhead(1), r.TimeLimiter(5.0))(items)
    use: Any = guarded()

    assert await anext(use) == 1
    assert await use.asend("hello") == "hello"
    assert await use.athrow(Boom()) == "caught"
    with pytest.raises(StopAsyncIteration):
        await anext(use)


async def test_methods_without_self_are_guarded() -> None:
    """The policy may stand above @staticmethod and @classmethod."""
    guard = breaker()

    class Client:
        @guard
        @staticmethod
        async def asked() -> None:
            raise Boom

        @guard
        @classmethod
        def name(cls) -> str:
            return cls.__name__

    with pytest.raises(Boom):
        await Client.asked()

    assert Client.name() == "Client"
    assert counts(guard) == (1, 1, 0)


def test_what_hides_its_outcome_is_refused() -> None:
    """A plain function around a coroutine function or generator is a TypeError when it is decorated."""

    async def call() -> None: ...

    @functools.wraps(call)
    def logged() -> Any:
        return call()

    @contextlib.asynccontextmanager
    async def session() -> AsyncIterator[int]:
        yield 1

    @contextlib.contextmanager
    def plain_session() -> Iterator[int]:
        yield 1

    for hidden in (logged, session, plain_session):
        for policy in (breaker(), r.Bulkhead(1), r.Retry(2), r.pipeline(breaker())):
            with pytest.raises(TypeError, match="nothing is seen of its outcome"):
                policy(hidden)

    @contextlib.asynccontextmanager
    @breaker()
    async def guarded() -> AsyncIterator[int]:
        yield 1

    async def use() -> int:
        async with guarded() as value:
            return value

    assert asyncio.run(use()) == 1


@pytest.mark.parametrize("make", [breaker, lambda: r.Bulkhead(1), lambda: r.Retry(3, wait=0), r.pipeline])
async def test_a_mistaken_form_is_named_and_not_counted(make: Callable[[], r.Policy]) -> None:
    """An awaitable from a plain call, or none from an awaited one, is an error of its own: nothing counts it."""
    policy, made = make(), []

    async def call() -> None:
        raise AssertionError("never awaited")

    for mistake in (lambda: policy.call_plain(call), lambda: policy.call_plain(lambda: call())):
        with pytest.raises(TypeError, match="await"):
            mistake()
    with pytest.raises(TypeError, match="call_plain"):
        await policy.call(lambda: made.append(1))  # type: ignore[arg-type]

    assert made == [1]
    if isinstance(policy, r.CircuitBreaker):
        assert counts(policy) == (0, 0, 0)
    with pytest.raises(TypeError, match="generator"):
        policy.call_plain(fail_in_a_generator)


def fail_in_a_generator() -> Iterator[None]:
    yield None
    raise Boom


def test_a_plain_fallback_never_hands_out_a_coroutine() -> None:
    """A handler that answers with an awaitable where nobody awaits is told so."""

    async def answer(error: Exception) -> int:
        return 1

    with pytest.raises(r.Misused):
        r.fallback({Boom: lambda error: answer(error)})(fail)()


def test_a_block_that_cannot_be_is_refused_before_anything_is_taken() -> None:
    """Plain `with` of a pipeline that needs a loop takes no permit, and counts nothing."""
    guard = breaker()
    with pytest.raises(TypeError, match="async with"), r.pipeline(guard, r.TimeLimiter(1.0)):
        pass

    assert counts(guard) == (0, 0, 0)


async def test_no_async_listener() -> None:
    """A listener that nobody would await is refused; one that hands out a coroutine is counted as failed."""

    async def listen(event: r.Event) -> None: ...

    guard = breaker()
    with pytest.raises(TypeError, match="asynchronous"):
        guard.on(r.StateTransition, listen)  # type: ignore[arg-type]
    guard.on(r.StateTransition, lambda event: listen(event))  # type: ignore[arg-type, return-value]
    guard.force_open()

    assert guard.machine.publisher.failures == 1


# -- functions of users ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["fail_result", "open_if"])
def test_a_predicate_that_raises_costs_no_result(option: str) -> None:
    """The caller gets what the call gave; the failure of the predicate is only logged."""
    guard = breaker(**{option: lambda result: result.nope})

    assert guard.call_plain(lambda: 1) == 1
    assert counts(guard) == (1, 0, 0)


@pytest.mark.parametrize("option", ["record_if", "ignore_if", "open_if"])
def test_a_predicate_that_raises_costs_no_error(option: str) -> None:
    """The caller gets the call's own error, with a note that names the predicate; it counts as a failure."""
    guard = breaker(record=(), **{"record_if": lambda error: True, option: lambda error: error.nope})
    with pytest.raises(Boom) as raised:
        guard.call_plain(fail)

    assert option in raised.value.__notes__[0]
    assert counts(guard) == (0, 1, 0)


@pytest.mark.parametrize("wait", [lambda _: 1 / 0, lambda _: float("nan"), lambda _: "5", lambda _: -1])
def test_a_wait_function_that_fails_leaves_the_state(wait: Callable[[int], Any]) -> None:
    """CLOSED stays CLOSED and HALF_OPEN stays HALF_OPEN, with its probe; the caller gets the call's own error."""
    guard = breaker(wait_open=wait)
    for _ in range(6):
        with pytest.raises(Boom):
            guard.call_plain(fail)

    assert guard.state is r.State.CLOSED
    with pytest.raises((ValueError, ZeroDivisionError)):
        guard.transition_to(r.State.OPEN)
    assert guard.state is r.State.CLOSED

    guard.transition_to(r.State.OPEN, wait=timedelta(seconds=1))
    guard.transition_to(r.State.HALF_OPEN)
    for _ in range(3):
        with pytest.raises(Boom):
            guard.call_plain(fail)

    assert guard.state is r.State.HALF_OPEN


def test_an_undecided_visit_waits_for_its_wait() -> None:
    """A visit whose time is over stays HALF_OPEN while the wait function fails, and opens once it answers."""
    clock, waits = FakeClock(), iter([Boom(), 5.0])

    def wait(number: int) -> float:
        found = next(waits)
        if isinstance(found, Boom):
            raise found
        return found

    guard = breaker(wait_open=wait, half_open=r.probes(1, max_wait=2), clock=clock)
    guard.transition_to(r.State.OPEN, wait=1)
    guard.transition_to(r.State.HALF_OPEN)
    probe = guard.permit()
    clock.advance(3)

    assert guard.state is r.State.HALF_OPEN
    assert guard.state is r.State.OPEN
    probe.release()


@pytest.mark.parametrize("wait", [timedelta(seconds=7), lambda number: timedelta(seconds=7), 7.0])
def test_durations_may_be_timedeltas_everywhere(wait: Any) -> None:
    """Wait functions, `open_if`, manual transitions, deadlines and retries take them."""
    clock = FakeClock()
    guard = breaker(wait_open=wait, clock=clock)
    guard.transition_to(r.State.OPEN)
    with pytest.raises(r.CallNotPermitted) as refused:
        guard.permit()

    assert refused.value.retry_after == 7.0

    asked = breaker(open_if=lambda result: timedelta(seconds=3), clock=clock)
    asked.call_plain(lambda: 1)

    assert asked.state is r.State.OPEN
    with r.deadline(timedelta(seconds=5)):
        assert 4 < (r.remaining() or 0) <= 5
    begun = clock.monotonic()
    with pytest.raises(Boom):
        r.Retry(2, wait=wait, clock=clock).call_plain(fail)

    assert clock.monotonic() - begun == 7.0


# -- retry ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (2, 2.0),
        (timedelta(seconds=3), 3.0),
        ("4", 4.0),
        ("Thu, 01 Jan 2026 00:00:05 GMT", 5.0),
        (86_400, 30.0),
        ("120", 30.0),
        (float("nan"), 0.1),
        (float("inf"), 0.1),
        (-5, 0.1),
        (True, 0.1),
        ("soon", 0.1),
        (Mock(), 0.1),
    ],
)
def test_retry_after_is_understood_and_capped(asked: Any, waited: float) -> None:
    """Seconds, timedelta and HTTP date, never longer than max_wait; what is none of these is ignored."""
    clock = FakeClock()
    begun = clock.monotonic()

    def busy() -> None:
        error = Boom()
        error.retry_after = asked  # type: ignore[attr-defined]
        raise error

    with pytest.raises(Boom):
        r.Retry(2, wait=0.1, clock=clock).call_plain(busy)

    assert clock.monotonic() - begun == pytest.approx(waited)


def test_a_broken_attribute_costs_no_error() -> None:
    """An error whose `retry_after` raises is raised as it is."""

    class Odd(Exception):
        @property
        def retry_after(self) -> float:
            raise ZeroDivisionError

    def call() -> None:
        raise Odd

    with pytest.raises(Odd):
        r.Retry(2, wait=0).call_plain(call)


@pytest.mark.parametrize("wait", [lambda number: 1 / 0, lambda number: float("nan"), lambda number: None])
def test_a_retry_whose_wait_fails_stops(wait: Callable[[int], Any]) -> None:
    """No other attempt, and the call's own error."""
    retry = r.Retry(3, wait=wait)
    with pytest.raises(Boom):
        retry.call_plain(fail)

    assert retry.statistics().retries_total == 0


def test_a_wait_may_look_at_the_outcome() -> None:
    """`wait_for` gets the attempt and its error or result."""
    seen: list[tuple[int, object]] = []

    def wait(attempt: int, outcome: object) -> float:
        seen.append((attempt, outcome))
        return 0.0

    r.Retry(2, wait_for=wait, retry_result=lambda result: True).call_plain(lambda: "again")
    with pytest.raises(Boom):
        r.Retry(2, wait_for=wait).call_plain(fail)

    assert seen[0] == (1, "again")
    assert isinstance(seen[1][1], Boom)


def test_what_is_no_exception_is_retried_if_named() -> None:
    """A BaseException named in `on` is retried; what cancels or interrupts can't be named."""
    made = []

    def call() -> None:
        made.append(1)
        raise Killed

    with pytest.raises(Killed):
        r.Retry(3, wait=0, on=(Killed,)).call_plain(call)

    assert len(made) == 3
    for never in (KeyboardInterrupt, asyncio.CancelledError, BaseException):
        with pytest.raises(ConfigError, match="cancelled or interrupted"):
            r.Retry(3, on=(never,))


async def test_a_cancellation_is_not_retried_under_another_name() -> None:
    """A callee that makes an error of its cancellation is not called again."""
    made = 0

    async def call() -> None:
        nonlocal made
        made += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise ConnectionError("translated") from None

    task = asyncio.ensure_future(r.Retry(3, wait=0).call(call))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(ConnectionError):
        await task

    assert made == 1


def test_mocks_say_nothing() -> None:
    """A result with every attribute doesn't forbid its own repetition."""
    made = []

    def call() -> Mock:
        made.append(1)
        return Mock(status=503)

    r.Retry(3, wait=0, retry_result=lambda result: result.status == 503).call_plain(call)

    assert len(made) == 3


def test_caps_are_caps() -> None:
    """No wait exceeds its cap, jitter included."""
    wait = r.exponential(1, cap=4, jitter=1.0)

    assert max(wait(attempt) for attempt in range(1, 2000)) <= 4


@pytest.mark.parametrize(
    "build",
    [
        lambda: r.Retry(2, wait=True),
        lambda: r.Retry("3"),  # type: ignore[arg-type]
        lambda: breaker(failure_rate=True),
        lambda: breaker(half_open=r.Probes(1, max_wait=float("nan"))),
        lambda: r.TimeLimiter(True),
        lambda: r.TimeLimiter("1s"),  # type: ignore[arg-type]
        lambda: r.Bulkhead(True),
        lambda: r.Bulkhead(1, max_wait=True),
        lambda: r.Budget(True),
        lambda: r.deadline("1").__enter__(),  # type: ignore[arg-type]
    ],
)
def test_flags_and_texts_are_no_numbers(build: Callable[[], object]) -> None:
    """`True` is no duration, and no count."""
    with pytest.raises(ConfigError):
        build()


# -- the request's deadline -----------------------------------------------------------------------------------------


async def test_every_layer_keeps_to_the_deadline() -> None:
    """A call ends at the deadline by DeadlineTimeout, whichever policies are around it; no breaker counts that."""
    guard = breaker()
    pipeline = r.pipeline(guard, r.Bulkhead(1))
    policies: list[r.Policy] = [guard, r.Bulkhead(1), r.RateLimiter(9), r.TimeLimiter(60), pipeline]
    for policy in policies:
        begun = time.monotonic()
        with r.deadline(0.02), pytest.raises(r.DeadlineTimeout):
            await policy.call(asyncio.Event().wait)

        assert time.monotonic() - begun >= 0.02

    assert counts(guard) == (0, 0, 0)
    assert guard.statistics().deadline_exceeded_total == 2


async def test_impatient_callers_open_no_breaker() -> None:
    """However many have too little time: the breaker stays closed, and the time limiter counts them apart."""
    guard, limiter = breaker(window=r.last(20), min_calls=5), r.TimeLimiter(30.0)
    call = r.pipeline(guard, r.Bulkhead(25), limiter)(asyncio.sleep)
    for _ in range(12):
        with r.deadline(0.001), contextlib.suppress(r.DeadlineTimeout, r.DeadlineExceeded):
            await call(20)

    assert guard.state is r.State.CLOSED
    assert guard.statistics().failed_total == 0
    assert limiter.statistics().timeout == 0
    assert limiter.statistics().deadline == guard.statistics().deadline_exceeded_total > 0


async def test_a_limiters_own_time_is_a_failure_as_ever() -> None:
    """A deadline further off than the limiter's own time changes nothing."""
    guard = breaker()
    with r.deadline(60), pytest.raises(TimeoutError, match="recorded a timeout"):
        await r.pipeline(guard, r.TimeLimiter(0.01)).call(asyncio.Event().wait)

    assert counts(guard) == (0, 1, 0)


async def test_nothing_waits_beyond_the_deadline() -> None:
    """A place or turn that comes too late is refused when that is known, and counted by no breaker."""
    bulkhead, limiter, guard = r.Bulkhead(1, max_wait=60), r.RateLimiter(1, period=60, max_wait=90), breaker()
    await bulkhead.enter()
    await limiter.enter()
    for policy in (bulkhead, limiter):
        with r.deadline(0.02), pytest.raises((r.DeadlineExceeded, r.DeadlineTimeout)):
            await r.pipeline(guard, policy).call(asyncio.sleep, 0)
        with r.deadline(0.02), pytest.raises(r.DeadlineExceeded):
            await policy.call(asyncio.sleep, 0)
        with r.deadline(0.02), pytest.raises(r.DeadlineExceeded):
            policy.call_plain(fail)

    assert counts(guard)[:2] == (0, 0)
    assert bulkhead.statistics().waiting == limiter.statistics().waiting == 0
    assert limiter.statistics().available_permissions == 0


async def test_a_passed_deadline_takes_nothing() -> None:
    """With no time left no permit is taken, in any form."""
    guard = breaker()
    with r.deadline(-1):
        items = guard(fail_in_a_generator)
        for use in (lambda: guard.call_plain(fail), lambda: guard.__enter__(), lambda: list(items())):
            with pytest.raises(r.DeadlineExceeded):
                use()
        with pytest.raises(r.DeadlineExceeded):
            await guard.call(asyncio.sleep, 0)

    assert guard.statistics().ignored_total == 0


async def test_a_task_that_outlives_its_request_is_free() -> None:
    """Neither the deadline nor the mark of a repetition stays with a task once the request is over."""
    go, seen = asyncio.Event(), []

    async def work() -> None:
        seen.append((r.remaining() is not None, r.current_attempt()))
        await go.wait()
        seen.append((r.remaining() is not None, r.current_attempt()))

    with r.deadline(5), r.repeated_request(2):
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
    go.set()
    await task

    assert seen == [(True, 2), (False, 1)]


async def test_there_is_a_way_out() -> None:
    """`detached()` and `deadline(None)` free what is done inside while the request still runs."""

    async def look() -> tuple[bool, int]:
        await asyncio.sleep(0)
        return r.remaining() is None, r.current_attempt()

    with r.deadline(5), r.repeated_request(2):
        with r.detached():
            task = asyncio.create_task(look())
            assert await look() == (True, 1)
        with r.deadline(None):
            assert await look() == (True, 2)

        assert await look() == (False, 2)
        assert await task == (False, 2)  # the block has ended: the task is the request's again


# -- time limiter -----------------------------------------------------------------------------------------------------


async def test_a_time_limiter_goes_by_its_clock() -> None:
    """With a clock of the test's, time is over when the test says so."""
    clock = FakeClock()
    task = asyncio.ensure_future(r.TimeLimiter(30, clock=clock).call(asyncio.Event().wait))
    await clock.settle()

    assert not task.done()

    await clock.run(31)
    with pytest.raises(TimeoutError):
        await task


def test_a_time_limiter_needs_a_task() -> None:
    """Driven by hand, without a task to cancel, it says what it needs."""
    coroutine: Any = r.TimeLimiter(1)(asyncio.sleep)(0)
    with pytest.raises(RuntimeError):
        coroutine.send(None)


# -- threads ----------------------------------------------------------------------------------------------------------


def test_listeners_run_outside_of_the_lock() -> None:
    """Two breakers whose listeners move each other don't stop each other's threads."""
    first, second = breaker(threads=True), breaker(threads=True)
    meeting = threading.Barrier(2, timeout=5)

    def meet(other: r.CircuitBreaker) -> Callable[[r.StateTransition], None]:
        def listen(event: r.StateTransition) -> None:
            with contextlib.suppress(threading.BrokenBarrierError):
                meeting.wait()
            other.force_open()

        return listen

    first.on(r.StateTransition, meet(second))
    second.on(r.StateTransition, meet(first))
    threads = [threading.Thread(target=each.force_open, daemon=True) for each in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert not any(thread.is_alive() for thread in threads)


def test_events_arrive_in_order() -> None:
    """What a listener brings about is told to all after the event it listens to, and changes no decision."""
    clock = FakeClock()
    guard = breaker(wait_open=1, clock=clock)
    heard: list[str] = []
    guard.on(r.StateTransition, lambda event: guard.reset() if event.to_state is r.State.HALF_OPEN else None)
    guard.on(r.StateTransition, lambda event: heard.append(event.to_state.value))
    guard.transition_to(r.State.OPEN)
    clock.advance(2)
    guard.permit().success()  # admitted as a probe, though a listener closes the breaker at once

    assert heard == ["OPEN", "HALF_OPEN", "CLOSED"]
    assert guard.state is r.State.CLOSED


def test_a_plain_block_locks() -> None:
    """`with guard:` from threads takes the same lock as a call does: one probe is one probe."""
    guard = breaker(clock=FakeClock())
    with guard:
        pass

    assert guard.machine._lock is not None


def test_a_registry_gives_each_thread_the_same() -> None:
    """Many threads that ask for one name at once get one breaker; `threads=True` locks what is there already."""
    registry = r.Registry()
    for number in range(20):
        got: list[r.CircuitBreaker] = []
        start = threading.Barrier(6)

        def ask(name: str = f"n{number}", got: list[r.CircuitBreaker] = got, start: threading.Barrier = start) -> None:
            start.wait()
            got.append(registry.circuit_breaker(name))

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert len({id(each) for each in got}) == 1

    assert registry.circuit_breaker("n1").machine._lock is None
    assert registry.circuit_breaker("n1", threads=True).machine._lock is not None
    assert r.Registry(threads=True).circuit_breaker("x").machine._lock is not None


def test_keyed_breakers_have_a_bound() -> None:
    """Failures keep a breaker for ten idle times, a state set by hand for good; beyond `most` the idlest goes."""
    clock = FakeClock()
    registry = r.Registry(clock=clock)
    by_host = registry.keyed("h", idle=10, most=50)
    for number in range(60):
        by_host[number].permit().failure(Boom())

    assert len(by_host) == 50

    by_host[59].force_open()
    clock.advance(50)
    by_host["a"]
    assert len(by_host) == 50

    clock.advance(60)
    by_host["b"]

    assert len(by_host) <= 3
    assert by_host[59].state is r.State.FORCED_OPEN
    assert len(list(registry)) == len(by_host)


def test_a_pool_survives_a_fork() -> None:
    """A thread pool that was used before a fork works in the child."""
    import os

    pool = r.ThreadPoolBulkhead(1)
    run = pool(lambda: 7)

    async def use() -> int:
        return await asyncio.wait_for(run(), 10)

    assert asyncio.run(use()) == 7
    child = os.fork()
    if child == 0:
        try:
            os._exit(asyncio.run(use()))
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    pool.close()

    assert os.waitstatus_to_exitcode(status) == 7


def test_every_option_has_a_type() -> None:
    """The keyword arguments that a type checker knows are the fields of the configuration."""
    from backstay.resilience.config import BreakerOptions

    assert set(BreakerOptions.__annotations__) == set(r.CircuitBreakerConfig.__dataclass_fields__)


@pytest.mark.parametrize("make", [lambda: breaker(initial_state=r.State.FORCED_OPEN), lambda: r.Bulkhead(0)])
async def test_a_refusal_leaves_no_garbage(make: Callable[[], r.Policy]) -> None:
    """A refused call is freed at once: nothing of it waits for the garbage collector."""
    policy = make()
    guarded, plain = policy(asyncio.sleep), policy(fail)

    async def refused() -> None:
        with contextlib.suppress(r.Rejected):
            await guarded(0)
        with contextlib.suppress(r.Rejected):
            plain()
        with contextlib.suppress(r.Rejected):
            async with policy:
                pass

    await refused()
    gc.collect()
    gc.disable()
    try:
        await refused()

        assert gc.collect() == 0
    finally:
        gc.enable()
