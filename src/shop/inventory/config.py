"""Settings of inventory."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from shop.settings import ShopSettings


@dataclass(frozen=True, kw_only=True)
class Settings(ShopSettings):
    """Settings of inventory."""

    database_connections: Annotated[int, Meta(ge=2)] = 6
    """Connections to the database at most."""
