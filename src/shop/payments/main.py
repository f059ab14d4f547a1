"""Payments, put together."""

from collections.abc import Mapping

from backstay.db import Database
from backstay.outbox import Outbox
from backstay.service import Service
from shop.kernel.pace import GATHER, KEEP
from shop.payments.api import routes
from shop.payments.config import Settings
from shop.payments.jobs import jobs
from shop.payments.providers import Sandbox
from shop.payments.service import Payments


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("payments", migrations="migrations", max_size=settings.database_connections)
    box = Outbox(db)
    provider = Sandbox(slow=settings.sandbox_slow)
    payments = Payments(db, box, provider, settings)
    return Service(
        "payments",
        settings=settings,
        routes=routes(payments),
        owns=[db, provider, box.relay(min_idle=GATHER, gather=KEEP), payments],
        jobs=jobs(payments, settings),
    )
