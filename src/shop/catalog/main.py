"""The catalog, put together."""

from collections.abc import Mapping

from backstay.db import Database
from backstay.outbox import Outbox
from backstay.service import Service
from shop.catalog.api import routes
from shop.catalog.config import Settings
from shop.catalog.service import Products


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("catalog", migrations="migrations", max_size=settings.database_connections)
    box = Outbox(db)
    products = Products(db, box)
    return Service("catalog", settings=settings, prefix="/api/v1", routes=routes(products), owns=[db, box.relay()])
