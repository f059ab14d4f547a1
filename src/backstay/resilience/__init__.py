"""Resilience policies with Resilience4j's meaning, for asyncio: one import, no dependencies.

import backstay.resilience as r

guarded = r.pipeline(r.Retry(3), r.CircuitBreaker("payments"), r.Bulkhead(25), r.TimeLimiter(1.0))(charge)
"""

from backstay.resilience.bulkhead import Bulkhead, BulkheadStatistics
from backstay.resilience.circuit_breaker import CircuitBreaker, Permit, circuit_breaker
from backstay.resilience.config import CircuitBreakerConfig, Probes, Slow, over, probes
from backstay.resilience.deadline import HEADER as DEADLINE_HEADER
from backstay.resilience.deadline import clamp, deadline, remaining
from backstay.resilience.errors import (
    BudgetExhausted,
    BulkheadFull,
    CallNotPermitted,
    DeadlineExceeded,
    IllegalTransition,
    MaxRetriesExceeded,
    RateLimited,
    Rejected,
    ResilienceError,
)
from backstay.resilience.events import (
    BreakerReset,
    CallFailed,
    CallIgnored,
    CallSucceeded,
    ConfigChanged,
    Event,
    FailureRateExceeded,
    NotPermitted,
    ResultRecordedAsFailure,
    RetriesExhausted,
    Retrying,
    SlowCallRateExceeded,
    State,
    StateTransition,
)
from backstay.resilience.fallback import Fallback, fallback
from backstay.resilience.pipeline import Pipeline, pipeline
from backstay.resilience.policy import Policy
from backstay.resilience.rate_limiter import RateLimiter, RateLimiterStatistics
from backstay.resilience.retry import Budget, Retry, RetryStatistics, exponential, fixed
from backstay.resilience.state_machine import BreakerStatistics
from backstay.resilience.time_limiter import TimeLimiter, TimeLimiterStatistics
from backstay.resilience.windows import WindowSize, last

__all__ = [
    "DEADLINE_HEADER",
    "BreakerReset",
    "BreakerStatistics",
    "Budget",
    "BudgetExhausted",
    "Bulkhead",
    "BulkheadFull",
    "BulkheadStatistics",
    "CallFailed",
    "CallIgnored",
    "CallNotPermitted",
    "CallSucceeded",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "ConfigChanged",
    "DeadlineExceeded",
    "Event",
    "FailureRateExceeded",
    "Fallback",
    "IllegalTransition",
    "MaxRetriesExceeded",
    "NotPermitted",
    "Permit",
    "Pipeline",
    "Policy",
    "Probes",
    "RateLimited",
    "RateLimiter",
    "RateLimiterStatistics",
    "Rejected",
    "ResilienceError",
    "ResultRecordedAsFailure",
    "RetriesExhausted",
    "Retry",
    "RetryStatistics",
    "Retrying",
    "Slow",
    "SlowCallRateExceeded",
    "State",
    "StateTransition",
    "TimeLimiter",
    "TimeLimiterStatistics",
    "WindowSize",
    "circuit_breaker",
    "clamp",
    "deadline",
    "exponential",
    "fallback",
    "fixed",
    "last",
    "over",
    "pipeline",
    "probes",
    "remaining",
]
