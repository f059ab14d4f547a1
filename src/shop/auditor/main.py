"""The auditor, put together."""

from collections.abc import Mapping

from backstay.db import Database
from backstay.service import Service
from shop.auditor.api import routes
from shop.auditor.clients import Changes
from shop.auditor.config import Settings
from shop.auditor.jobs import jobs
from shop.auditor.service import Auditor


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("auditor", migrations="migrations", max_size=settings.database_connections)
    changes = Changes(timeout=settings.read_timeout)
    auditor = Auditor(db, changes, settings)
    return Service(
        "auditor",
        settings=settings,
        prefix="/api/v1",
        routes=routes(auditor),
        owns=[db, *changes.clients, auditor],
        jobs=jobs(auditor, settings),
    )
