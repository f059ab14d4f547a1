"""Pipeline: several policies as one, the first outermost.

The order that serves a remote call: fallback ( retry ( circuit breaker ( bulkhead ( time limiter ( call ))))).
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any, ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience.admission import Admission, Stack
from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.chaos import FaultInjection
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.fallback import Fallback
from backstay.resilience.policy import AsyncItems, Block, Call, Guarded, Items, Plain, Policy, gives_awaitable, misused
from backstay.resilience.rate_limiter import RateLimiter
from backstay.resilience.retry import Retry
from backstay.resilience.thread_pool import ThreadPoolBulkhead
from backstay.resilience.time_limiter import TimeLimiter

P = ParamSpec("P")
R = TypeVar("R")

Layer = Policy | ThreadPoolBulkhead

BAD_ORDERS: tuple[tuple[type, type, str], ...] = (
    (TimeLimiter, CircuitBreaker, "the circuit breaker never sees a time-out of the time limiter around it"),
    (TimeLimiter, Bulkhead, "waiting for a place in the bulkhead uses up the time limiter's seconds"),
    (TimeLimiter, RateLimiter, "waiting for a turn of the rate limiter uses up the time limiter's seconds"),
    (Retry, Fallback, "the retry never sees a failure that the fallback inside it answers"),
    (CircuitBreaker, Fallback, "the circuit breaker never sees a failure that the fallback inside it answers"),
    (CircuitBreaker, Retry, "the circuit breaker sees only the last attempt of the retry inside it"),
    (Bulkhead, Retry, "the bulkhead's place is kept while the retry inside it waits"),
    (FaultInjection, CircuitBreaker, "the circuit breaker never sees the faults that are injected around it"),
)


class Pipeline(Policy):
    """Policies around one another. Decorate a function with it, keep the result: it is built once.

    A `ThreadPoolBulkhead` may be the innermost layer; it makes a coroutine function of a plain one.
    """

    def __init__(self, *layers: Layer, name: str = "pipeline") -> None:
        wrong = [layer for layer in layers if not isinstance(layer, Layer)]
        if wrong:
            raise ConfigError([f"pipeline: {layer!r} is not a policy" for layer in wrong])
        if any(isinstance(layer, ThreadPoolBulkhead) for layer in layers[:-1]):
            raise ConfigError(["pipeline: a ThreadPoolBulkhead must be the last, innermost layer"])
        self.name = name
        self.layers = layers
        self._policies: tuple[Policy, ...] = tuple(each for each in layers if isinstance(each, Policy))
        self._pool = next((each for each in layers if isinstance(each, ThreadPoolBulkhead)), None)

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """Guard a coroutine function by all layers."""
        if self._pool is not None:
            raise TypeError(f"{self._pool!r} runs plain functions in threads, and {call!r} is a coroutine function")
        if not self._policies:
            return _bare(call)
        *outer, innermost = _stacked(self._policies)
        guarded = innermost.wrap(call)
        for layer in reversed(outer):
            guarded = layer.wrap(guarded)
        return guarded

    def wrap_plain(self, call: Callable[P, R]) -> Plain[P, R]:
        """Guard a plain function by all layers; with a thread pool innermost it becomes a coroutine function."""
        if self._pool is not None:
            isolated = self._pool(call)
            for layer in reversed(self._policies):
                isolated = layer.wrap(isolated)
            return isolated  # type: ignore[return-value]
        wrapped = call if self._policies else _bare_plain(call)
        for layer in reversed(self._policies):
            wrapped = layer.wrap_plain(wrapped)
        return wrapped

    def wrap_generator(self, call: AsyncItems[P, R]) -> AsyncItems[P, R]:
        """Guard an async generator by all layers."""
        self._refuse_pool(call)
        for layer in reversed(self._policies):
            call = layer.wrap_generator(call)
        return call

    def wrap_plain_generator(self, call: Items[P, R]) -> Items[P, R]:
        """Guard a plain generator by all layers."""
        self._refuse_pool(call)
        for layer in reversed(self._policies):
            call = layer.wrap_plain_generator(call)
        return call

    def _refuse_pool(self, call: object) -> None:
        if self._pool is not None:
            raise TypeError(f"{self._pool!r} runs plain functions in threads, and {call!r} is none")

    def block(self) -> Block:
        """Guard a block by all layers."""
        self._refuse_pool("a block")
        return _Nested([layer.block() for layer in self._policies])

    @property
    def breaker(self) -> CircuitBreaker | None:
        """The pipeline's circuit breaker, if it has one."""
        return next((layer for layer in self.layers if isinstance(layer, CircuitBreaker)), None)

    def explain(self) -> list[str]:
        """Warnings about layers, or an order of them, that rarely mean what was intended."""
        place = {type(layer): index for index, layer in enumerate(self.layers)}
        said = [text for outer, inner, text in BAD_ORDERS if place.get(outer, 99) < place.get(inner, -1)]
        said += [
            f"circuit breaker '{each.name}': min_calls {each.config.min_calls} is more than its window holds; "
            f"{each.config.needed} is used"
            for each in self.layers
            if isinstance(each, CircuitBreaker) and each.config.needed < each.config.min_calls
        ]
        twice = {type(each).__name__ for each in self.layers if sum(type(each) is type(one) for one in self.layers) > 1}
        said += [f"more than one {name}: each counts by itself" for name in sorted(twice - {"Bulkhead", "RateLimiter"})]
        return said

    def __repr__(self) -> str:
        return " ( ".join(repr(layer) for layer in self.layers) + " ( call" + " )" * len(self.layers)


class _Nested(Block):
    """A block inside several."""

    def __init__(self, blocks: Sequence[Block]) -> None:
        self._blocks = blocks
        self._stack = AsyncExitStack()
        self._plain = ExitStack()

    def check_plain(self) -> None:
        for block in self._blocks:
            block.check_plain()

    async def __aenter__(self) -> Any:
        async with AsyncExitStack() as stack:
            for block in self._blocks:
                await stack.enter_async_context(block)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)

    def __enter__(self) -> Any:
        self.check_plain()  # before the first of them has taken anything
        with ExitStack() as stack:
            for block in self._blocks:
                stack.enter_context(block)
            self._plain = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._plain.__exit__(*error)


def _stacked(policies: Sequence[Policy]) -> list[Policy]:
    """Return the same policies, with adjacent admissions combined into one."""
    found: list[Policy] = []
    for policy in reversed(policies):
        if found and isinstance(policy, Admission) and isinstance(found[0], Admission):
            found[0] = Stack(policy, found[0])
        else:
            found.insert(0, policy)
    return found


def _bare(call: Call[P, R]) -> Guarded[P, R]:
    async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        return await call(*args, **kwargs)

    return guarded


def _bare_plain(call: Callable[P, R]) -> Plain[P, R]:
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        result = call(*args, **kwargs)
        if gives_awaitable(result):
            raise misused(call)
        return result

    return guarded


def pipeline(*layers: Layer, name: str = "pipeline") -> Pipeline:
    """Policies as one, the first outermost."""
    return Pipeline(*layers, name=name)


__all__ = ["Pipeline", "pipeline"]
