"""The keys of `resilience4j.*`: what each kind allows, and which keys are read without an effect.

docs/resilience/configuration.md lists those without an effect; a test compares the two.
"""

COMMON = (
    "baseConfig",
    "registerHealthIndicator",
    "allowHealthIndicatorToFail",
    "eventConsumerBufferSize",
    "tags",
)
"""Keys of every kind that say nothing about its policy."""
KEYS = {
    "circuitbreaker": """failureRateThreshold slowCallRateThreshold slowCallDurationThreshold slidingWindowType
        slidingWindowSize minimumNumberOfCalls permittedNumberOfCallsInHalfOpenState waitDurationInOpenState
        maxWaitDurationInHalfOpenState transitionToStateAfterWaitDuration automaticTransitionFromOpenToHalfOpenEnabled
        initialState recordExceptions ignoreExceptions recordFailurePredicate ignoreExceptionPredicate
        recordResultPredicate enableExponentialBackoff exponentialBackoffMultiplier
        exponentialMaxWaitDurationInOpenState enableRandomizedWait randomizedWaitFactor writableStackTraceEnabled
        ignoreClassBindingExceptions parity""",
    "retry": """maxAttempts waitDuration intervalBiFunction retryExceptions ignoreExceptions retryExceptionPredicate
        resultPredicate failAfterMaxAttempts enableExponentialBackoff exponentialBackoffMultiplier
        exponentialMaxWaitDuration enableRandomizedWait randomizedWaitFactor ignoreClassBindingExceptions budgetRatio
        budgetMinimumPerSecond""",
    "ratelimiter": "limitForPeriod limitRefreshPeriod timeoutDuration subscribeForEvents writableStackTraceEnabled",
    "bulkhead": "maxConcurrentCalls maxWaitDuration writableStackTraceEnabled",
    "threadpoolbulkhead": """maxThreadPoolSize coreThreadPoolSize queueCapacity keepAliveDuration contextPropagators
        writableStackTraceEnabled""",
    "timelimiter": "timeoutDuration cancelRunningFuture",
}
ALLOWED = {kind: (*COMMON, *keys.split()) for kind, keys in KEYS.items()}
INSTANCES = ("instances", "backends", "limiters")
"""Names of the section with the instances: today's, and those of earlier versions that Resilience4j still reads."""
SECTIONS = {kind: ("configs", *INSTANCES, "tags", "metrics", f"{kind}AspectOrder") for kind in KEYS}
"""Keys of a kind beside those of an instance."""
OTHER_SECTIONS = ("micrometer", "timer", "metrics", "tags", "scheduled")
"""Sections below `resilience4j` that say nothing about a policy."""
WITHOUT_EFFECT = frozenset(
    (
        "registerHealthIndicator",
        "allowHealthIndicatorToFail",
        "eventConsumerBufferSize",
        "writableStackTraceEnabled",
        "subscribeForEvents",
        "coreThreadPoolSize",
        "keepAliveDuration",
        "contextPropagators",
        "metrics",
        *(f"{kind}AspectOrder" for kind in KEYS),
        *(f"resilience4j.{section}" for section in OTHER_SECTIONS),
    )
)
"""What is read and has no effect here."""
VOCABULARY = frozenset((*KEYS, *OTHER_SECTIONS, *(key for kind in KEYS for key in (*SECTIONS[kind], *ALLOWED[kind]))))
"""Every key, for environment variables."""
WAITS = {
    "circuitbreaker": (
        "waitdurationinopenstate",
        (
            "enableexponentialbackoff",
            "exponentialbackoffmultiplier",
            "exponentialmaxwaitdurationinopenstate",
            "enablerandomizedwait",
            "randomizedwaitfactor",
        ),
        (),
    ),
    "retry": (
        "waitduration",
        (
            "enableexponentialbackoff",
            "exponentialbackoffmultiplier",
            "exponentialmaxwaitduration",
            "enablerandomizedwait",
            "randomizedwaitfactor",
        ),
        (
            "enableexponentialbackoff",
            "exponentialbackoffmultiplier",
            "exponentialmaxwaitduration",
            "enablerandomizedwait",
        ),
    ),
}
"""Of a kind with waits: the key of the length, those that shape it, and those of them that an instance inherits.

A wait is made where its length is given: from the length, and from the shape that is given beside it or inherited.
"""
DISCARDED = {
    "circuitbreaker": (
        ("recordexceptions", "recordfailurepredicate"),
        ("ignoreexceptions", "ignoreexceptionpredicate"),
    )
}
"""Types given in an instance discard the predicate of its base."""

__all__ = [
    "ALLOWED",
    "DISCARDED",
    "INSTANCES",
    "KEYS",
    "OTHER_SECTIONS",
    "SECTIONS",
    "VOCABULARY",
    "WAITS",
    "WITHOUT_EFFECT",
]
