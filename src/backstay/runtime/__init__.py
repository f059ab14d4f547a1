"""One process: its settings, signals, ordered start and stop, checks, jobs, and its entry in the registry."""

from backstay.runtime.composition import Composition
from backstay.runtime.gc_tuning import freeze_gc
from backstay.runtime.health import Check, CheckResult, Health, Readiness
from backstay.runtime.jobs import Job, JobStatistics, every
from backstay.runtime.program import Process, RunningProcess, load
from backstay.runtime.registration import Registration
from backstay.runtime.settings import (
    NO_ADDRESS,
    NO_ADDRESSES,
    NO_EXPRESSION,
    NO_SECRET,
    Address,
    DatabaseSettings,
    Expression,
    FixedAddresses,
    KafkaSettings,
    LogSettings,
    ManagementSettings,
    Port,
    RegistrationSettings,
    Seconds,
    Secret,
    Settings,
    SettingsError,
    TokenSettings,
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
    "Composition",
    "DatabaseSettings",
    "Expression",
    "FixedAddresses",
    "Health",
    "Job",
    "JobStatistics",
    "KafkaSettings",
    "LogSettings",
    "ManagementSettings",
    "Port",
    "Process",
    "Readiness",
    "Registration",
    "RegistrationSettings",
    "RunningProcess",
    "Seconds",
    "Secret",
    "Settings",
    "SettingsError",
    "StopSignal",
    "TokenSettings",
    "every",
    "freeze_gc",
    "load",
]
