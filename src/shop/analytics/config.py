"""What analytics can be told from outside."""

from dataclasses import dataclass

from backstay.service import ServiceSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """Analytics needs nothing beyond what every service does."""
