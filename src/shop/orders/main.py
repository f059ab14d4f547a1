"""Orders, put together."""

from collections.abc import Mapping

from backstay.db import Database
from backstay.messaging import Consumer
from backstay.outbox import Outbox
from backstay.service import Service
from shop.kernel.pace import GATHER, KEEP
from shop.orders.api import actuator, internal, routes
from shop.orders.clients import PaymentsClient, payments_client, pipeline
from shop.orders.config import Settings
from shop.orders.handlers import register
from shop.orders.jobs import jobs
from shop.orders.service import Orders


def settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings in the environment. Raises ConfigError with every mistake."""
    return Settings.read(environ)


def build(settings: Settings) -> Service:
    """Return the service, ready to run."""
    db = Database("orders", migrations="migrations", max_size=settings.database_connections)
    box = Outbox(db)
    policies = pipeline(settings)
    to_payments = payments_client(policies)
    orders = Orders(db, box, PaymentsClient(to_payments), settings)
    consumer = Consumer("orders", db=db, gather=GATHER, catch_up=["products"])
    register(consumer, orders)
    breakers = [policies.breaker] if policies.breaker else []
    return Service(
        "orders",
        settings=settings,
        routes=[*(route.under("/api/v1") for route in routes(orders)), *internal(orders), *actuator(breakers)],
        owns=[db, to_payments, box.relay(min_idle=GATHER, gather=KEEP), consumer, orders],
        jobs=jobs(orders, settings),
    )
