"""Errors raised by policies.

BackstayError
└── ResilienceError
    ├── Rejected                 the call was not made: a policy refused it
    │   ├── CallNotPermitted     by a circuit breaker
    │   ├── BulkheadFull         by a bulkhead
    │   ├── RateLimited          by a rate limiter
    │   ├── BudgetExhausted      by a retry budget (no longer raised)
    │   └── DeadlineExceeded     no time was left to make it
    ├── DeadlineTimeout          the request's deadline ended the call        (also TimeoutError)
    ├── Misused                  the guarded function isn't what it was taken for (also TypeError)
    ├── MaxRetriesExceeded       every attempt gave a result that should be retried
    └── IllegalTransition        a manual state change that the state machine doesn't know

A time limiter raises the built-in `TimeoutError` when its own time is over.
"""

from backstay.errors import BackstayError


class ResilienceError(BackstayError):
    """Base of everything that this package raises."""


class Rejected(ResilienceError):
    """The call was refused before it was made: `Rejected(name, retry_after)`.

    It says nothing about the dependency: a breaker doesn't count it, a retry doesn't repeat it. A refusal happens when
    there is too much to do already, so it is built without running a line of Python; its message is made when read.
    """

    __init__ = Exception.__init__
    message = "'{0}' does not permit further calls"

    @property
    def name(self) -> str:
        """The policy that refused."""
        return str(self.args[0]) if self.args else ""

    @property
    def retry_after(self) -> float:
        """Seconds until a new try makes sense; 0.0 when that isn't known."""
        return float(self.args[1]) if len(self.args) > 1 else 0.0

    def __str__(self) -> str:
        return self.message.format(*self.args) if self.args else type(self).__name__


class CallNotPermitted(Rejected):
    """A circuit breaker is open, or half-open with all its probes given out: `(name, retry_after, state)`."""

    message = "CircuitBreaker '{0}' is {2.value} and does not permit further calls"


class BulkheadFull(Rejected):
    """As many calls as the bulkhead allows are in flight."""

    message = "Bulkhead '{0}' is full and does not permit further calls"


class RateLimited(Rejected):
    """The rate limiter has no permission left in this period."""

    message = "RateLimiter '{0}' does not permit further calls"


class BudgetExhausted(Rejected):
    """The retry budget of this dependency is spent.

    No longer raised: the call was made and failed, so its own error is raised, with a note. Kept for code that has it.
    """

    message = "Retry '{0}' has no budget left for another attempt"


class DeadlineExceeded(Rejected):
    """The request's deadline left no time for this call."""

    message = "the deadline of the request has passed"


class DeadlineTimeout(ResilienceError, TimeoutError):
    """The request's own deadline ended the call while it was under way: the caller's impatience, no failure."""


class Misused(ResilienceError, TypeError):
    """The guarded function isn't what it was taken for: a plain one gave an awaitable, or an asynchronous one none.

    It says nothing about the dependency: no breaker counts it and no retry repeats it.
    """


class MaxRetriesExceeded(ResilienceError):
    """All attempts were made and each gave a result that should be retried."""


class IllegalTransition(ResilienceError):
    """The transition of the circuit breaker isn't allowed."""
