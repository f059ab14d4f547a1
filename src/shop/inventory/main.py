"""Inventory, put together."""

from collections.abc import Mapping

from backstay.db import Database
from backstay.messaging import Consumer
from backstay.outbox import Outbox
from backstay.service import Service
from shop.inventory.api import internal, routes
from shop.inventory.config import Settings
from shop.inventory.handlers import register
from shop.inventory.service import Stock
from shop.kernel.pace import GATHER, KEEP


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("inventory", migrations="migrations", max_size=settings.database_connections)
    box = Outbox(db)
    stock = Stock(db, box)
    consumer = Consumer("inventory", db=db, gather=GATHER)
    register(consumer, stock)
    return Service(
        "inventory",
        settings=settings,
        routes=[*(route.under("/api/v1") for route in routes(stock)), *internal(stock)],
        owns=[db, box.relay(min_idle=GATHER, gather=KEEP), consumer],
    )
