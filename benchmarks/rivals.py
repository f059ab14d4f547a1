"""Every library in one run, at equal features as far as each has them; prints JSON. Started by `bench_resilience`.

Runs in an environment that has the rivals of `rivals.txt`; what can't be built or fails is left out, with its reason.
"""

import asyncio
import contextlib
import gc
import inspect
import itertools
import json
import sys
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import metadata
from typing import Any

import backstay.resilience as r
from benchmarks.pairing import bare, bare_await, over_bare

NEVER = 10**9
BREAKERS_WEIGHED = 100
Call = Callable[..., Awaitable[Any]]
Decorate = Callable[[Call], Any]


class Boom(Exception):
    """The failure of the measured call."""


_turns = itertools.cycle([True, *[False] * 49])


async def mostly_boom() -> int:
    """A call that fails, but for each fiftieth: no threshold of 100 % is ever reached."""
    if next(_turns):
        return 1
    raise Boom


async def boom() -> int:
    """A call that fails."""
    raise Boom


# -- circuit breakers: (threshold in failures, seconds open, probes) → decorator --------------------------------------


def backstay(threshold: int, wait: float, probes: int) -> Decorate:
    """Count window of 100, both rates, eras, cancel-safe."""
    size = min(threshold, 100)
    return r.CircuitBreaker(
        "x",
        window=r.last(size),
        min_calls=size,
        failure_rate=100,
        slow=r.over(5.0),
        wait_open=wait,
        half_open=r.probes(probes, max_wait=0.1),
    )


def nopanic(threshold: int, wait: float, probes: int) -> Decorate:
    import nopanic as it

    return it.circuit_breaker(
        failure_threshold=1.0,
        min_calls=min(threshold, 100),
        reset_timeout=wait,
        half_open_max_calls=probes,
        slow_call_duration=5.0,
    )


def interlock(threshold: int, wait: float, probes: int) -> Decorate:
    import interlock as it

    size = min(threshold, 100)
    return it.CircuitBreaker(
        name="x",
        config=it.Config(
            failure_rate_threshold=1.0,
            minimum_number_of_calls=size,
            window_size=size,
            slow_call_duration_threshold=5.0,
            permitted_calls_in_half_open=probes,
            max_concurrent_probes=probes,
            wait_duration_in_open=wait,
        ),
    )


def pyresilience(threshold: int, wait: float, probes: int) -> Decorate:
    import pyresilience as it

    size = min(threshold, 100)
    config = it.CircuitBreakerConfig(
        sliding_window_size=size,
        minimum_calls=size,
        failure_rate_threshold=1.0,
        slow_call_duration=5.0,
        recovery_timeout=wait,
        success_threshold=probes,
        failure_threshold=threshold,
    )
    return it.resilient(circuit_breaker=config)


def fluxgate(threshold: int, wait: float, probes: int) -> Decorate:
    import fluxgate as it
    from fluxgate import permits, retries, trackers, trippers, windows

    size = min(threshold, 100)
    return it.AsyncCircuitBreaker(
        windows.CountWindow(size),
        trackers.TypeOf(Boom),
        trippers.MinRequests(size) & (trippers.FailureRate(1.0) | trippers.SlowRate(1.0, threshold=5.0)),
        retries.Cooldown(wait),
        permits.All(),
        max_half_open_calls=probes,
    )


def crashbytes(threshold: int, wait: float, probes: int) -> Decorate:
    import crashbytes_resilience as it

    return it.circuit_breaker(failure_threshold=threshold, recovery_timeout=wait)


def hyx(threshold: int, wait: float, probes: int) -> Decorate:
    from hyx.circuitbreaker import consecutive_breaker

    return consecutive_breaker(failure_threshold=threshold, recovery_time_secs=wait, recovery_threshold=probes)


def purgatory(threshold: int, wait: float, probes: int) -> Decorate:
    import purgatory as it

    return it.AsyncCircuitBreakerFactory(default_threshold=threshold, default_ttl=wait)("x")


def circuitbreaker(threshold: int, wait: float, probes: int) -> Decorate:
    import circuitbreaker as it

    return it.CircuitBreaker(failure_threshold=threshold, recovery_timeout=wait)


def pybreaker(threshold: int, wait: float, probes: int) -> Decorate:
    """Plain functions only; around a coroutine function it sees none of the outcomes, so it isn't measured here."""
    import pybreaker as it

    breaker = it.CircuitBreaker(fail_max=threshold, reset_timeout=wait)
    return lambda call: lambda: _plain(breaker, call)


async def _plain(breaker: Any, call: Call) -> Any:
    return breaker.call(_run, call)


def _run(call: Call) -> Any:
    try:
        call().send(None)  # type: ignore[attr-defined]
    except StopIteration as ended:
        return ended.value


def aiobreaker(threshold: int, wait: float, probes: int) -> Decorate:
    from datetime import timedelta

    import aiobreaker as it

    return it.CircuitBreaker(fail_max=threshold, timeout_duration=timedelta(seconds=wait))


BREAKERS: dict[str, tuple[str, Callable[[int, float, int], Decorate]]] = {
    "Backstay": ("count 100, slow rate, eras", backstay),
    "nopanic": ("time buckets, slow rate", nopanic),
    "interlock-cb": ("count 100, slow rate, eras", interlock),
    "pyresilience": ("count 100, slow rate", pyresilience),
    "fluxgate": ("count 100, slow rate", fluxgate),
    "crashbytes-resilience": ("consecutive failures", crashbytes),
    "hyx": ("consecutive failures", hyx),
    "purgatory": ("consecutive failures", purgatory),
    "circuitbreaker": ("consecutive failures", circuitbreaker),
    "pybreaker": ("consecutive failures, sync", pybreaker),
    "aiobreaker": ("consecutive failures", aiobreaker),
}


# -- other policies -----------------------------------------------------------------------------------------------


def others() -> dict[str, dict[str, Callable[[], Call]]]:
    """By library and policy, what builds a guarded `bare`."""

    def five() -> Call:
        breaker = r.CircuitBreaker("x", slow=r.over(5.0))
        return r.pipeline(r.Fallback({Boom: str}), r.Retry(3), breaker, r.Bulkhead(25), r.TimeLimiter(10.0))(bare)

    def nopanic_five() -> Call:
        import nopanic as it

        breaker = it.circuit_breaker(slow_call_duration=5.0)
        return it.compose(it.fallback(0, on=Boom), it.retry(3), breaker, it.bulkhead(25), it.timeout(10.0))(bare)

    def interlock_five() -> Call:
        import interlock as it

        def retried(call: Call) -> Call:
            import tenacity

            return tenacity.retry(stop=tenacity.stop_after_attempt(3), reraise=True)(call)

        layers = (it.CircuitBreakerStrategy(interlock(100, 60, 10)), it.BulkheadStrategy(25), it.TimeoutStrategy(10.0))
        pipe, outer = it.Pipeline(*layers), it.Pipeline(it.FallbackStrategy(lambda error: 0, on=(Boom,)))

        async def inner() -> Any:
            return await pipe.call(bare)

        call = retried(inner)

        async def all_five() -> Any:
            return await outer.call(call)

        return all_five

    def pyresilience_five() -> Call:
        import pyresilience as it

        return it.resilient(
            retry=it.RetryConfig(max_attempts=3),
            timeout=it.TimeoutConfig(seconds=10.0),
            circuit_breaker=it.CircuitBreakerConfig(sliding_window_size=100, minimum_calls=100, slow_call_duration=5.0),
            fallback=it.FallbackConfig(handler=lambda error: 0, fallback_on=(Boom,)),
            bulkhead=it.BulkheadConfig(max_concurrent=25),
        )(bare)

    def crashbytes_five() -> Call:
        import crashbytes_resilience as it

        layers = (it.timeout(10.0), it.bulkhead(25), it.circuit_breaker(), it.retry(3), it.fallback(lambda *_: 0))
        return it.pipeline(*layers)(bare)

    def hyx_five() -> Call:
        from hyx.bulkhead import bulkhead
        from hyx.circuitbreaker import consecutive_breaker
        from hyx.fallback import fallback
        from hyx.retry import retry
        from hyx.timeout import timeout

        async def answer(*_: Any, **__: Any) -> int:
            return 0

        call = bulkhead(25, 100)(timeout(10.0)(bare))
        return fallback(answer, on=Boom)(retry(on=Boom, attempts=3)(consecutive_breaker()(call)))

    return {
        "Backstay": {
            "retry": lambda: r.Retry(3)(bare),
            "bulkhead": lambda: r.Bulkhead(25)(bare),
            "rate limiter": lambda: r.RateLimiter(NEVER)(bare),
            "time limiter": lambda: r.TimeLimiter(10.0)(bare),
            "five layers": five,
        },
        "nopanic": {
            "retry": lambda: _of("nopanic").retry(3)(bare),
            "bulkhead": lambda: _of("nopanic").bulkhead(25)(bare),
            "rate limiter": lambda: _of("nopanic").rate_limit(NEVER)(bare),
            "time limiter": lambda: _of("nopanic").timeout(10.0)(bare),
            "five layers": nopanic_five,
        },
        "interlock-cb": {"five layers": interlock_five},
        "pyresilience": {"five layers": pyresilience_five},
        "crashbytes-resilience": {
            "retry": lambda: _of("crashbytes_resilience").retry(3)(bare),
            "bulkhead": lambda: _of("crashbytes_resilience").bulkhead(25)(bare),
            "rate limiter": lambda: _of("crashbytes_resilience").rate_limiter(NEVER)(bare),
            "time limiter": lambda: _of("crashbytes_resilience").timeout(10.0)(bare),
            "five layers": crashbytes_five,
        },
        "hyx": {
            "retry": lambda: _of("hyx.retry").retry(on=Boom, attempts=3)(bare),
            "bulkhead": lambda: _of("hyx.bulkhead").bulkhead(25, 100)(bare),
            "time limiter": lambda: _of("hyx.timeout").timeout(10.0)(bare),
            "five layers": hyx_five,
        },
        "tenacity": {"retry": lambda: _of("tenacity").retry(stop=_of("tenacity").stop_after_attempt(3))(bare)},
        "stamina": {"retry": lambda: _of("stamina").retry(on=Boom, attempts=3)(bare)},
        "backoff": {"retry": lambda: _of("backoff").on_exception(_of("backoff").expo, Boom, max_tries=3)(bare)},
        "aiolimiter": {"rate limiter": _aiolimiter},
        "asyncio": {"bulkhead": _semaphore, "time limiter": _timeout},
    }


def _of(module: str) -> Any:
    import importlib

    return importlib.import_module(module)


def _aiolimiter() -> Call:
    limiter = _of("aiolimiter").AsyncLimiter(NEVER, 1)

    async def call() -> int:
        async with limiter:
            return await bare()

    return call


def _semaphore() -> Call:
    semaphore = asyncio.Semaphore(25)

    async def call() -> int:
        async with semaphore:
            return await bare()

    return call


def _timeout() -> Call:
    async def call() -> int:
        async with asyncio.timeout(10.0):
            return await bare()

    return call


# -- measuring ------------------------------------------------------------------------------------------------------


async def times(slices: int) -> dict[str, Any]:
    """Nanoseconds over a bare await (failing: over the bare failing call), by library and case; refused is absolute."""
    unit = await bare_await()
    failing = await over_bare(mostly_boom, failing=True, slices=slices)
    found: dict[str, Any] = {"bare await": unit * 1e9}

    async def measure(library: str, case: str, build: Callable[[], Call], base: float, fails: bool) -> None:
        try:
            ratio = await over_bare(build(), failing=fails, slices=slices)
            found.setdefault(library, {})[case] = round((ratio - base) * unit * 1e9)
        except Exception as error:  # a rival that can't isn't measured
            print(f"{library}: {case}: {type(error).__name__}: {error}", file=sys.stderr)

    for library, (_, make) in BREAKERS.items():
        await measure(library, "closed", lambda make=make: make(NEVER, 60, 10)(bare), 1, False)
        await measure(library, "failing", lambda make=make: make(NEVER, 60, 10)(mostly_boom), failing, True)
        try:
            refused = await opened(make(2, 3600, 3))
            await measure(library, "refused", lambda refused=refused: refused, 0, True)
        except Exception as error:
            print(f"{library}: refused: {error!r}", file=sys.stderr)
    for library, cases in others().items():
        for case, build in cases.items():
            await measure(library, case, build, 1, False)
    await ours(measure, failing)
    return found


async def ours(measure: Callable[..., Awaitable[None]], failing: float) -> None:
    """What only we have, or what has a bound of its own."""

    def dirty(**options: Any) -> Call:
        breaker = r.CircuitBreaker("x", slow=r.over(5.0), **options)
        guarded, turn = breaker(bare), 0

        async def call() -> int:
            nonlocal turn
            turn += 1
            if turn % 20 == 0:  # the window is never clean: a twentieth of the cost of a failure is in the figure
                breaker.permit().failure(Boom())
            return await guarded()

        return call

    async def counted() -> int:
        """The same bookkeeping around a bare await, to be taken off."""
        nonlocal turn
        turn += 1
        if turn % 20 == 0:
            pass
        return await bare()

    turn = 0
    base = await over_bare(counted, slices=30)
    await measure("Backstay", "closed, dirty window", dirty, base, False)
    window = r.last(seconds=60)
    await measure("Backstay", "closed, time window 60 s", lambda: _breaker(window=window)(bare), 1, False)
    await measure("Backstay", "closed, threads", lambda: _breaker(threads=True)(bare), 1, False)


def _breaker(**options: Any) -> r.CircuitBreaker:
    return r.CircuitBreaker("x", slow=r.over(5.0), **options)


# -- memory ---------------------------------------------------------------------------------------------------------


async def memory(decorate: Callable[[int, float, int], Decorate]) -> dict[str, int]:
    """Bytes of a breaker whose window of 100 is full, and of the function that it guards in addition."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    breakers, functions = [], []
    for _ in range(BREAKERS_WEIGHED):
        breakers.append(decorate(100, 60, 3))
        guarded: Any = breakers[-1](bare)
        functions.append(await guarded if inspect.isawaitable(guarded) else guarded)
        for _ in range(100):
            await functions[-1]()
    del guarded
    gc.collect()
    both = tracemalloc.get_traced_memory()[0] - before
    functions.clear()
    gc.collect()
    alone = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {"breaker": alone // len(breakers), "both": both // len(breakers)}


# -- behaviour ------------------------------------------------------------------------------------------------------


async def opened(decorate: Decorate, call: Call = boom) -> Any:
    """A guarded call whose breaker is open."""
    guarded = decorate(call)
    if inspect.isawaitable(guarded):
        guarded = await guarded
    for _ in range(3):
        with contextlib.suppress(Exception):
            await guarded()
    return guarded


class Switch:
    """A call that fails, succeeds, or hangs until it is let go, as told."""

    def __init__(self) -> None:
        self.mode = "fail"
        self.started = 0
        self.gate = asyncio.Event()

    def call(self) -> Call:
        """The coroutine function to guard."""

        async def switched() -> int:
            self.started += 1
            if self.mode == "fail":
                raise Boom
            if self.mode == "hang":
                await self.gate.wait()
            return 1

        return switched


async def probe(make: Callable[[int, float, int], Decorate]) -> dict[str, str]:
    """What a breaker with three probes does in the cases where most are wrong."""
    found: dict[str, str] = {}
    for name, case in (
        ("cancelled trial", _cancelled),
        ("1000 callers, 3 probes", _crowd),
        ("stale result in half-open", _stale),
        ("hung trials", _hung),
        ("async generator", _generator),
    ):
        try:
            async with asyncio.timeout(10):
                found[name] = await case(make)
        except Exception as error:  # told in the table
            found[name] = f"{type(error).__name__}"
    return found


async def _ready(make: Callable[[int, float, int], Decorate]) -> tuple[Switch, Any]:
    """A breaker whose wait is over, the next call being the first trial."""
    switch = Switch()
    guarded = await opened(make(2, 0.05, 3), switch.call())
    await asyncio.sleep(0.12)
    switch.mode, switch.started = "hang", 0
    return switch, guarded


async def _admitted(switch: Switch, guarded: Any, callers: int) -> tuple[int, list[asyncio.Task[Any]]]:
    switch.mode, before = "hang", switch.started
    tasks = [asyncio.ensure_future(guarded()) for _ in range(callers)]
    await asyncio.sleep(0.01)
    return switch.started - before, tasks


async def _let_go(switch: Switch, tasks: list[asyncio.Task[Any]]) -> None:
    switch.gate.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _cancelled(make: Callable[[int, float, int], Decorate]) -> str:
    switch, guarded = await _ready(make)
    _, tasks = await _admitted(switch, guarded, 1)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    count, more = await _admitted(switch, guarded, 50)
    await _let_go(switch, more)
    return {3: "given back", 2: "permit lost", 0: "counted as failure"}.get(
        count, "no limit, or closed by it" if count > 3 else f"{count} left"
    )


async def _crowd(make: Callable[[int, float, int], Decorate]) -> str:
    switch, guarded = await _ready(make)
    count, tasks = await _admitted(switch, guarded, 1000)
    waiting = sum(not task.done() for task in tasks)
    await _let_go(switch, tasks)
    return str(count) + (f", {waiting - count} queue" if waiting > count else "")


async def _stale(make: Callable[[int, float, int], Decorate]) -> str:
    switch = Switch()
    guarded = make(2, 0.05, 3)(switch.call())
    if inspect.isawaitable(guarded):
        guarded = await guarded
    _, late = await _admitted(switch, guarded, 3)
    switch.mode = "fail"
    await asyncio.gather(*(guarded() for _ in range(3)), return_exceptions=True)
    await asyncio.sleep(0.12)
    old_gate, switch.gate = switch.gate, asyncio.Event()
    _, trial = await _admitted(switch, guarded, 1)
    old_gate.set()  # only the stale ones succeed
    await asyncio.gather(*late, return_exceptions=True)
    count, tasks = await _admitted(switch, guarded, 20)
    await _let_go(switch, [*tasks, *trial])
    return "yes" if count > 3 else "no"


async def _hung(make: Callable[[int, float, int], Decorate]) -> str:
    switch, guarded = await _ready(make)
    count, tasks = await _admitted(switch, guarded, 3)
    await asyncio.sleep(0.3)
    more, others = await _admitted(switch, guarded, 3)
    await _let_go(switch, [*tasks, *others])
    if count > 3 or (count + more > 3 and not more <= 3):
        return "no limit"
    return "bounded" if more else "never bounded"


async def _generator(make: Callable[[int, float, int], Decorate]) -> str:
    async def numbers() -> AsyncIterator[int]:
        yield 1
        raise Boom

    try:
        guarded: Any = make(2, 3600, 3)(numbers)  # type: ignore[arg-type]
    except TypeError:
        return "TypeError"
    refused = 0
    for _ in range(6):
        try:
            async for _item in guarded():
                pass
        except Boom:
            pass
        except TypeError:
            return "TypeError at the call"
        except Exception:  # every rival refuses with an error of its own
            refused += 1
    return "guarded" if refused else "silently unguarded"


async def main(slices: int) -> None:
    """Print everything as JSON."""
    names = [line.split("==")[0] for line in open("benchmarks/rivals.txt") if "==" in line]  # noqa: SIM115
    print(
        json.dumps(
            {
                "python": sys.version.split()[0],
                "versions": {name: metadata.version(name) for name in names},
                "kinds": {name: kind for name, (kind, _) in BREAKERS.items()},
                "memory": await memory(backstay),  # first: what others leave in the free lists isn't counted
                "times": await times(slices),
                "behaviour": {name: await probe(make) for name, (_, make) in BREAKERS.items() if name != "pybreaker"},
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 40))
