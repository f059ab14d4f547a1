"""Analytics, put together."""

from collections.abc import Mapping

from backstay.db import Database
from backstay.service import Service
from shop.analytics.api import routes
from shop.analytics.config import Settings
from shop.analytics.handlers import Readers
from shop.analytics.jobs import jobs
from shop.analytics.service import Analytics


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("analytics", migrations="migrations", max_size=settings.database_connections)
    analytics = Analytics(db)
    return Service(
        "analytics",
        settings=settings,
        prefix="/api/v1",
        routes=routes(analytics),
        owns=[db, Readers(db, analytics)],
        jobs=jobs(analytics),
    )
