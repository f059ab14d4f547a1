"""Settings of payments, and its fault points."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from backstay.service import Seconds
from shop.settings import ShopSettings

_STEPS = ("charge", "find", "cancel", "refund")

FAULT_POINTS: tuple[str, ...] = (
    *(f"payments.{verb}.{side}-intent-commit" for verb in ("charge", "void", "refund") for side in ("before", "after")),
    *(f"payments.provider.{side}-{step}" for step in _STEPS for side in ("before", "after")),
    *(f"payments.{step}.{side}-result-commit" for step in _STEPS for side in ("before", "after")),
    "payments.provider.after-changes",
    *(f"payments.changes.{side}-result-commit" for side in ("before", "after")),
)
"""Both sides of each commit and of each call to the provider."""


@dataclass(frozen=True, kw_only=True)
class Settings(ShopSettings):
    """Settings of payments."""

    database_connections: Annotated[int, Meta(ge=2)] = 6
    """Connections to the database at most."""
    provider_timeout: Seconds = 10.0
    """How long one call to the provider may take; its answer is worth waiting for even when our caller is gone."""
    provider_calls: Annotated[int, Meta(ge=1)] = 100
    """Calls to the provider in flight; more are refused with 503."""
    stale_after: Seconds = 5.0
    """A payment left open that long by whoever asked the provider is taken up by the next one."""
    stale_interval: Seconds = 1.0
    """How often the job looks for such payments."""
    stale_batch: Annotated[int, Meta(ge=1)] = 20
    """How many of them it takes at once."""
    changes_interval: Seconds = 5.0
    """How often the job looks for refunds that were made at the provider."""
    changes_batch: Annotated[int, Meta(ge=1)] = 200
    """Entries of the provider's ledger that it reads at once."""
    sandbox_slow: Seconds = 8.0
    """How late the sandbox answers a `pm_card_slow`."""
