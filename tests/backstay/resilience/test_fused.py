"""A fused pipeline is nothing but a faster one: it does what the nested policies do."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import backstay.resilience as r
from backstay.clock import SystemClock


class Boom(Exception):
    pass


class Nested(SystemClock):
    """The system's time by another function, so that the layers aren't fused."""

    def monotonic(self) -> float:  # type: ignore[override]
        return SystemClock.monotonic()


ENDINGS = st.sampled_from(["good", "boom", "refuse", "hang", "cancel", "timeout"])


async def play(endings: list[str], clock: SystemClock, budget: bool) -> list[object]:
    """Results, statistics and events of a pipeline of five around calls that end so."""
    heard: list[str] = []
    breaker = r.CircuitBreaker("x", window=r.last(6), min_calls=3, wait_open=60, clock=clock)
    retry = r.Retry(2, wait=0, budget=r.Budget(0.1, minimum=0.1) if budget else None, on=(Boom, TimeoutError))
    layers = [
        r.Fallback({Boom: lambda error: "fallback", r.CallNotPermitted: lambda error: "open"}),
        retry,
        breaker,
        r.Bulkhead(1),
        r.TimeLimiter(0.005),
    ]
    for layer in (breaker, retry):
        layer.on(r.Event, lambda event: heard.append(type(event).__name__))
    script = iter(endings)

    async def call() -> str:
        ending = next(script, "good")
        if ending == "hang":
            await asyncio.Event().wait()
        if ending == "cancel":
            raise asyncio.CancelledError
        if ending != "good":
            raise {"boom": Boom, "refuse": r.BulkheadFull, "timeout": TimeoutError}[ending]
        return ending

    guarded = r.pipeline(*layers)(call)
    seen: list[object] = []
    for _ in range(len(endings)):
        try:
            seen.append(await guarded())
        except (Exception, asyncio.CancelledError) as error:
            seen.append(type(error).__name__)
    counted: list[Any] = [each.statistics() for each in layers if hasattr(each, "statistics")]
    return [seen, heard, counted, breaker.state]


@settings(max_examples=60, deadline=None)
@given(st.lists(ENDINGS, max_size=14), st.booleans())
def test_fused_is_nested(endings: list[str], budget: bool) -> None:
    """The same results, events and counts, whatever the calls do."""
    fused = asyncio.run(play(endings, SystemClock(), budget))
    nested = asyncio.run(play(endings, Nested(), budget))

    assert fused == nested
