"""Notifications, put together."""

from collections.abc import Mapping

from backstay.db import Database
from backstay.messaging import Consumer
from backstay.outbox import Outbox
from backstay.service import Service
from shop.kernel.pace import GATHER, KEEP
from shop.notifications.api import internal, routes
from shop.notifications.config import Settings
from shop.notifications.handlers import register
from shop.notifications.jobs import jobs
from shop.notifications.providers import guarded, mailer
from shop.notifications.service import Notifications


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("notifications", migrations="migrations", max_size=settings.database_connections)
    box = Outbox(db)
    mail = guarded(
        mailer(settings.smtp_url, sender=settings.mail_from, tls=settings.smtp_tls, ca=settings.smtp_ca),
        wait_open=settings.smtp_wait_open,
    )
    notifications = Notifications(db, box, mail)
    consumer = Consumer("notifications", db=db, gather=GATHER)
    register(consumer, notifications)
    return Service(
        "notifications",
        settings=settings,
        routes=[*(route.under("/api/v1") for route in routes(notifications)), *internal(notifications)],
        owns=[db, box.relay(min_idle=GATHER, gather=KEEP), mail, consumer, notifications],
        jobs=jobs(notifications, settings),
    )
