"""What the policies cost over a bare await: `make bench-resilience`."""

import asyncio

import backstay.resilience as r
from benchmarks.pairing import bare, bare_await, environment, over_bare


class Boom(Exception):
    """The failure of the measured call."""


async def boom() -> int:
    """A call that fails."""
    raise Boom


def breaker(**options: object) -> r.CircuitBreaker:
    """The measured configuration: 100 calls, both rates."""
    return r.CircuitBreaker("bench", slow=r.over(1.0), **options)  # type: ignore[arg-type]


async def dirty() -> object:
    """A breaker whose window holds one failure among its last hundred calls."""
    guard = breaker(window=r.last(100))
    guarded = guard(bare)
    for _ in range(100):
        await guarded()
    guard.permit().failure(Boom())
    return guarded


async def main() -> None:
    """Print a line for each policy."""
    unit = await bare_await()
    print(environment())
    print(f"bare await {unit * 1e9:.0f} ns; below: ns over it, by the median of 60 paired slices")
    opened = breaker()
    opened.transition_to(r.State.OPEN)
    pipe = r.pipeline(r.Fallback({Boom: lambda error: 0}), r.Retry(3), breaker(), r.Bulkhead(25), r.TimeLimiter(10.0))
    cases = (
        ("breaker, closed, clean window", breaker()(bare), False),
        ("breaker, closed, time window 60 s", breaker(window=r.last(seconds=60))(bare), False),
        ("breaker, failing call", breaker(failure_rate=100, min_calls=100, record=(), ignore=())(boom), True),
        ("breaker, open: refused", opened(bare), True),
        ("retry", r.Retry(3)(bare), False),
        ("bulkhead", r.Bulkhead(25)(bare), False),
        ("rate limiter", r.RateLimiter(10**9)(bare), False),
        ("time limiter", r.TimeLimiter(10.0)(bare), False),
        ("pipeline of five", pipe(bare), False),
    )
    for name, call, failing in cases:
        ratio = await over_bare(call, failing=failing)
        print(f"{name:36} {(ratio - 1) * unit * 1e9:8.0f} ns   {ratio:6.1f} × a bare await")


if __name__ == "__main__":
    asyncio.run(main())
