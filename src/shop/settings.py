"""Settings common to the services of the shop."""

from dataclasses import dataclass

from backstay.service import ServiceSettings


@dataclass(frozen=True, kw_only=True)
class ShopSettings(ServiceSettings):
    """Settings of a service of the shop."""

    token_audience: str = "shop"  # noqa: S105 - a name
    """Audience of customers' tokens; tokens of other services name this service instead."""
