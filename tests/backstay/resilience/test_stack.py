"""Admissions side by side in a pipeline share one shell, and do what nested ones do."""

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

import backstay.resilience as r


class Boom(Exception):
    pass


class Killed(BaseException):
    pass


ENDINGS = st.sampled_from(["good", "boom", "refuse", "hang", "cancel", "timeout", "killed", "crowd"])


async def play(endings: list[str], *, nested: bool) -> list[object]:
    """Results, statistics and events of breaker, limiters and bulkhead around calls that end so."""
    heard: list[str] = []
    breaker = r.CircuitBreaker("x", window=r.last(6), min_calls=3, wait_open=60)
    bulkhead, limiter = r.Bulkhead(1, max_wait=0.001), r.TimeLimiter(0.005)
    layers: list[Any] = [breaker, r.RateLimiter(10_000, period=3600), bulkhead, limiter]
    for layer in layers:
        layer.on(r.Event, lambda event: heard.append(type(event).__name__))
    script = iter(endings)

    async def call() -> str:
        ending = next(script, "good")
        if ending == "hang":
            await asyncio.Event().wait()
        if ending == "cancel":
            raise asyncio.CancelledError
        errors = {"boom": Boom, "refuse": r.BulkheadFull, "timeout": TimeoutError, "killed": Killed}
        if ending in errors:
            raise errors[ending]
        return ending

    guarded: Any = call
    if nested:
        for layer in reversed(layers):
            guarded = layer.wrap(guarded)
    else:
        guarded = r.pipeline(*layers)(call)
    seen: list[object] = []
    for ending in endings:
        if ending == "crowd":  # the place is taken: the next call waits for it, in vain
            await bulkhead.enter()
        try:
            seen.append(await guarded())
        except (Exception, asyncio.CancelledError, Killed) as error:
            seen.append((type(error).__name__, type(error.__cause__).__name__))
        if ending == "crowd":
            bulkhead.leave()
    counted = [each.statistics() for each in layers]
    return [seen, heard, counted, breaker.state, asyncio.current_task().cancelling()]  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(st.lists(ENDINGS, max_size=14))
def test_side_by_side_is_nested(endings: list[str]) -> None:
    """The same results, events and counts, whatever the calls do."""
    assert asyncio.run(play(endings, nested=False)) == asyncio.run(play(endings, nested=True))
