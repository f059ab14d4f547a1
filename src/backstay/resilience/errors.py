"""What the policies raise.

BackstayError
└── ResilienceError
    ├── Rejected                 the call was not made: a policy refused it
    │   ├── CallNotPermitted     by a circuit breaker
    │   ├── BulkheadFull         by a bulkhead
    │   ├── RateLimited          by a rate limiter
    │   ├── BudgetExhausted      by a retry budget
    │   └── DeadlineExceeded     no time was left to make it
    ├── MaxRetriesExceeded       every attempt gave a result that should be retried
    └── IllegalTransition        a manual state change that the state machine doesn't know

A time limiter raises the built-in `TimeoutError`.
"""

from backstay.errors import BackstayError


class ResilienceError(BackstayError):
    """Base of everything that this package raises."""


class Rejected(ResilienceError):
    """The call was refused before it was made.

    `name` is the policy's, `retry_after` the seconds until a new try makes sense (0.0 = unknown).
    A `Rejected` says nothing about the dependency: a breaker doesn't count it, a retry doesn't repeat it.
    """

    def __init__(self, message: str | None = None, *, name: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.name = name
        self.retry_after = retry_after


class CallNotPermitted(Rejected):
    """A circuit breaker is open, or half-open with all its probes given out."""


class BulkheadFull(Rejected):
    """As many calls as the bulkhead allows are in flight."""


class RateLimited(Rejected):
    """The rate limiter has no permission left in this period."""


class BudgetExhausted(Rejected):
    """The retry budget of this dependency is spent; raised from the error that would have been retried."""


class DeadlineExceeded(Rejected, TimeoutError):
    """The request's deadline left no time for this call."""


class MaxRetriesExceeded(ResilienceError):
    """All attempts were made and each gave a result that should be retried."""


class IllegalTransition(ResilienceError):
    """The circuit breaker can't go from its state to the one asked for."""
