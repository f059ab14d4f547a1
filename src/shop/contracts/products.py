"""Events of the catalog: each carries the whole product, so a copy needs only the newest version."""

from datetime import datetime

from backstay.messaging import Event
from shop.kernel import Money


class Product(Event):
    """A product as the catalog knows it; `version` grows by one with each change."""

    sku: str
    name: str
    category: str
    price: Money
    available: bool
    version: int
    at: datetime
    supplier: str | None = None
    unit: str | None = None


class ProductCreated(Product, topic="products", type="product.created", key="sku"):
    """A product entered the catalog."""


class ProductUpdated(Product, topic="products", type="product.updated", key="sku"):
    """A product's name, price, availability or description changed."""
