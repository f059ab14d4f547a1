"""Pipeline: several policies as one, the first outermost.

The order that serves a remote call: fallback ( retry ( circuit breaker ( bulkhead ( time limiter ( call ))))).
"""

from typing import ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.fallback import Fallback
from backstay.resilience.fused import fuse
from backstay.resilience.policy import Call, Guarded, Policy
from backstay.resilience.retry import Retry
from backstay.resilience.time_limiter import TimeLimiter

P = ParamSpec("P")
R = TypeVar("R")


class Pipeline(Policy):
    """Policies around one another. Decorate a function with it, keep the result: it is built once."""

    def __init__(self, *layers: Policy, name: str = "pipeline") -> None:
        wrong = [layer for layer in layers if not isinstance(layer, Policy)]
        if wrong:
            raise ConfigError([f"pipeline: {layer!r} is not a policy" for layer in wrong])
        self.name = name
        self.layers: tuple[Policy, ...] = layers

    def wrap(self, call: Call[P, R]) -> Guarded[P, R]:
        """`call` inside all layers."""

        async def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            return await call(*args, **kwargs)

        if not self.layers:
            return guarded
        match self.layers:
            case (*outer, CircuitBreaker() as breaker, Bulkhead() as bulkhead, TimeLimiter() as limiter):
                wrapped = fuse(breaker, bulkhead, limiter, call)
            case (*outer, innermost):
                wrapped = innermost.wrap(call)
        for layer in reversed(outer):
            wrapped = layer.wrap(wrapped)
        return wrapped

    @property
    def breaker(self) -> CircuitBreaker | None:
        """The pipeline's circuit breaker, if it has one."""
        return next((layer for layer in self.layers if isinstance(layer, CircuitBreaker)), None)

    def explain(self) -> list[str]:
        """Warnings about an order of layers that rarely means what was intended."""
        place = {type(layer): index for index, layer in enumerate(self.layers)}
        pairs = (
            (TimeLimiter, CircuitBreaker, "the circuit breaker never sees a time-out of the time limiter around it"),
            (TimeLimiter, Bulkhead, "waiting for a place in the bulkhead uses up the time limiter's seconds"),
            (Retry, Fallback, "the retry never sees a failure that the fallback inside it answers"),
            (CircuitBreaker, Fallback, "the circuit breaker never sees a failure that the fallback inside it answers"),
            (CircuitBreaker, Retry, "the circuit breaker sees only the last attempt of the retry inside it"),
        )
        return [text for outer, inner, text in pairs if place.get(outer, 99) < place.get(inner, -1)]

    def __repr__(self) -> str:
        return " ( ".join(repr(layer) for layer in self.layers) + " ( call" + " )" * len(self.layers)


def pipeline(*layers: Policy, name: str = "pipeline") -> Pipeline:
    """Policies as one, the first outermost."""
    return Pipeline(*layers, name=name)


__all__ = ["Pipeline", "pipeline"]
