"""The catalog as a whole: HTTP, outbox, relay, topic."""

from typing import Any

from backstay.testing import eventually
from shop.catalog.config import Settings
from shop.catalog.main import build, settings


async def test_a_change_reaches_the_topic(database: str, calling: Any, broker: Any, read: Any):
    """What an admin writes over HTTP is on the topic, each version once and in order."""
    chai = {"sku": "NW-001", "name": "Chai", "category": "Beverages", "price": {"amount": "18.00", "currency": "USD"}}
    async with calling(build(Settings(database_url=database)), broker) as api:
        await api.ask("POST", "/products", chai)
        for available in (False, True):
            await api.ask("PATCH", "/products/NW-001", {"available": available})
        await eventually(lambda: len(read("products")) == 3)

    found = [(kind, body["version"], body["available"]) for kind, body in read("products")]
    assert found == [("product.created", 1, True), ("product.updated", 2, False), ("product.updated", 3, True)]


def test_settings_come_from_the_environment():
    """The service is told by variables, and keeps its password to itself."""
    told = settings({"DATABASE_URL": "postgresql://catalog:hunter2@127.0.0.1/catalog", "PORT": "8001"})

    assert told.port == 8001
    assert "hunter2" not in repr(told)


async def test_it_describes_itself(database: str, calling: Any):
    """OpenAPI knows every route, without a token."""
    async with calling(build(Settings(database_url=database))) as api:
        reply = await api.http.request("127.0.0.1", api.running.port, "GET", "/openapi.json", timeout=5.0)

    assert reply.status == 200
    assert b"/api/v1/products/{sku}" in reply.body
