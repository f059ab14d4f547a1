"""Settings of the auditor, and the points at which it can be made to fail."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from backstay.service import Seconds
from shop.settings import ShopSettings

FAULT_POINTS: tuple[str, ...] = (
    "auditor.follow.after-read",
    "auditor.follow.before-commit",
    "auditor.follow.after-commit",
    "auditor.check.before-commit",
    "auditor.check.after-commit",
)
"""Both sides of each commit, and behind each read of another service."""


@dataclass(frozen=True, kw_only=True)
class Settings(ShopSettings):
    """Settings of the auditor."""

    database_connections: Annotated[int, Meta(ge=2)] = 4
    """Connections to the database at most."""
    read_interval: Seconds = 2.0
    """How often each service's changes are read."""
    read_batch: Annotated[int, Meta(ge=1, le=1000)] = 200
    """Facts read from a service at once."""
    read_timeout: Seconds = 5.0
    """How long one read may take."""
    check_interval: Seconds = 1.0
    """How often the orders that are due are compared."""
    check_batch: Annotated[int, Meta(ge=1)] = 100
    """Orders compared in one transaction."""
    tolerance: Seconds = 60.0
    """How long an order's facts must have been unchanged, in every service, before they have to add up."""
    unsettled_after: Seconds = 1200.0
    """Age from which an order that is neither confirmed nor cancelled is reported; longer than orders waits itself."""

    def problems(self) -> list[str]:
        """Contradictions among the auditor's settings besides the base's own."""
        found = super().problems()
        if self.unsettled_after <= self.tolerance:
            found.append(
                f"UNSETTLED_AFTER={self.unsettled_after:g}: must be longer than TOLERANCE={self.tolerance:g}, "
                "or an order would be reported while it may still be under way"
            )
        return found
