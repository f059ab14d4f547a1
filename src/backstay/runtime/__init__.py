"""One process: its settings, signals, checks and jobs."""

from backstay.runtime.gc_tuning import freeze_gc
from backstay.runtime.health import Check, CheckResult, Health, Readiness
from backstay.runtime.jobs import Job, JobStatistics, every
from backstay.runtime.settings import (
    NO_ADDRESS,
    NO_ADDRESSES,
    NO_EXPRESSION,
    NO_SECRET,
    Address,
    Expression,
    FixedAddresses,
    KafkaSettings,
    Port,
    Seconds,
    Secret,
    Settings,
)
from backstay.runtime.stopping import StopSignal

__all__ = [
    "NO_ADDRESS",
    "NO_ADDRESSES",
    "NO_EXPRESSION",
    "NO_SECRET",
    "Address",
    "Check",
    "CheckResult",
    "Expression",
    "FixedAddresses",
    "Health",
    "Job",
    "JobStatistics",
    "KafkaSettings",
    "Port",
    "Readiness",
    "Seconds",
    "Secret",
    "Settings",
    "StopSignal",
    "every",
    "freeze_gc",
]
