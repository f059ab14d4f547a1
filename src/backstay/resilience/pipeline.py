"""Pipeline: several policies as one, the first outermost.

The order that serves a remote call: fallback ( retry ( circuit breaker ( bulkhead ( time limiter ( call ))))).
"""

from typing import ParamSpec, TypeVar

from backstay.errors import ConfigError
from backstay.resilience.bulkhead import Bulkhead
from backstay.resilience.circuit_breaker import CircuitBreaker
from backstay.resilience.fallback import Fallback
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

        async def bare(*args: P.args, **kwargs: P.kwargs) -> R:
            return await call(*args, **kwargs)

        guarded: Guarded[P, R] = bare
        for index, layer in enumerate(reversed(self.layers)):
            guarded = layer.wrap(call if index == 0 else guarded)
        return guarded

    def find(self, kind: type[Policy]) -> Policy | None:
        """The first layer of this kind."""
        return next((layer for layer in self.layers if isinstance(layer, kind)), None)

    @property
    def breaker(self) -> CircuitBreaker | None:
        """The pipeline's circuit breaker, if it has one."""
        return next((layer for layer in self.layers if isinstance(layer, CircuitBreaker)), None)

    def explain(self) -> list[str]:
        """Warnings about an order of layers that rarely means what was intended."""
        place = {kind: index for index, layer in enumerate(self.layers) for kind in (type(layer),)}
        pairs = (
            (
                TimeLimiter,
                CircuitBreaker,
                "the time limiter is outside the circuit breaker, which never sees a time-out",
            ),
            (Retry, Fallback, "the fallback is inside the retry, which never sees a failure"),
            (CircuitBreaker, Retry, "the retry is inside the circuit breaker, which sees only the last attempt"),
            (CircuitBreaker, Fallback, "the fallback is inside the circuit breaker, which never sees a failure"),
            (
                TimeLimiter,
                Bulkhead,
                "the bulkhead is inside the time limiter: waiting for a place uses up the call's time",
            ),
        )
        return [text for outer, inner, text in pairs if place.get(outer, 99) < place.get(inner, -1)]

    def __repr__(self) -> str:
        return " ( ".join(repr(layer) for layer in self.layers) + " ( call" + " )" * len(self.layers)


def pipeline(*layers: Policy, name: str = "pipeline") -> Pipeline:
    """Policies as one, the first outermost."""
    return Pipeline(*layers, name=name)


__all__ = ["Pipeline", "pipeline"]
