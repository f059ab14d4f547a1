"""Resilience policies with Resilience4j's meaning, for asyncio: one import, no dependencies.

import backstay.resilience as r

guarded = r.pipeline(r.Retry(3), r.CircuitBreaker("payments"), r.Bulkhead(25), r.TimeLimiter(1.0))(charge)
"""

from backstay.resilience.actuator import Actuator
from backstay.resilience.budget import Budget, BudgetStatistics
from backstay.resilience.bulkhead import Bulkhead, BulkheadStatistics
from backstay.resilience.chaos import FaultInjection
from backstay.resilience.circuit_breaker import CircuitBreaker, Permit, circuit_breaker
from backstay.resilience.config import CircuitBreakerConfig, Probes, Slow, over, probes
from backstay.resilience.deadline import HEADER as DEADLINE_HEADER
from backstay.resilience.deadline import clamp, deadline, remaining
from backstay.resilience.detached import detached
from backstay.resilience.errors import (
    BudgetExhausted,
    BulkheadFull,
    CallNotPermitted,
    DeadlineExceeded,
    DeadlineTimeout,
    IllegalTransition,
    MaxRetriesExceeded,
    Misused,
    RateLimited,
    Rejected,
    ResilienceError,
)
from backstay.resilience.events import (
    BreakerReset,
    BudgetSpent,
    BulkheadRejected,
    CallFailed,
    CallIgnored,
    CallSucceeded,
    ConfigChanged,
    Event,
    FailureRateExceeded,
    FallbackTaken,
    FaultInjected,
    NotPermitted,
    RateLimitRejected,
    ResultRecordedAsFailure,
    RetriesExhausted,
    RetryIgnored,
    Retrying,
    RetrySucceeded,
    SlowCallRateExceeded,
    State,
    StateTransition,
    TimedOut,
)
from backstay.resilience.fallback import Fallback, fallback
from backstay.resilience.health import health
from backstay.resilience.meters import Timers
from backstay.resilience.pipeline import Pipeline, pipeline
from backstay.resilience.policy import Block, Policy
from backstay.resilience.rate_limiter import RateLimiter, RateLimiterStatistics
from backstay.resilience.registry import EntryAdded, EntryRemoved, EntryReplaced, Keyed, Registry
from backstay.resilience.retry import (
    HEADER as RETRY_HEADER,
)
from backstay.resilience.retry import (
    STOP_HEADER,
    Retry,
    RetryStatistics,
    attempt_of,
    current_attempt,
    repeated_request,
)
from backstay.resilience.statistics import BreakerStatistics
from backstay.resilience.thread_pool import ThreadPoolBulkhead, ThreadPoolStatistics
from backstay.resilience.time_limiter import TimeLimiter, TimeLimiterStatistics
from backstay.resilience.verdict import Verdict
from backstay.resilience.waits import exponential, fixed, randomised
from backstay.resilience.windows import WindowSize, last

__all__ = [
    "DEADLINE_HEADER",
    "RETRY_HEADER",
    "STOP_HEADER",
    "Actuator",
    "Block",
    "BreakerReset",
    "BreakerStatistics",
    "Budget",
    "BudgetExhausted",
    "BudgetSpent",
    "BudgetStatistics",
    "Bulkhead",
    "BulkheadFull",
    "BulkheadRejected",
    "BulkheadStatistics",
    "CallFailed",
    "CallIgnored",
    "CallNotPermitted",
    "CallSucceeded",
    "CircuitBreaker",
    "CircuitBreakerConfig",
    "ConfigChanged",
    "DeadlineExceeded",
    "DeadlineTimeout",
    "EntryAdded",
    "EntryRemoved",
    "EntryReplaced",
    "Event",
    "FailureRateExceeded",
    "Fallback",
    "FallbackTaken",
    "FaultInjected",
    "FaultInjection",
    "IllegalTransition",
    "Keyed",
    "MaxRetriesExceeded",
    "Misused",
    "NotPermitted",
    "Permit",
    "Pipeline",
    "Policy",
    "Probes",
    "RateLimitRejected",
    "RateLimited",
    "RateLimiter",
    "RateLimiterStatistics",
    "Registry",
    "Rejected",
    "ResilienceError",
    "ResultRecordedAsFailure",
    "RetriesExhausted",
    "Retry",
    "RetryIgnored",
    "RetryStatistics",
    "RetrySucceeded",
    "Retrying",
    "Slow",
    "SlowCallRateExceeded",
    "State",
    "StateTransition",
    "ThreadPoolBulkhead",
    "ThreadPoolStatistics",
    "TimeLimiter",
    "TimeLimiterStatistics",
    "TimedOut",
    "Timers",
    "Verdict",
    "WindowSize",
    "attempt_of",
    "circuit_breaker",
    "clamp",
    "current_attempt",
    "deadline",
    "detached",
    "exponential",
    "fallback",
    "fixed",
    "health",
    "last",
    "over",
    "pipeline",
    "probes",
    "randomised",
    "remaining",
    "repeated_request",
]
