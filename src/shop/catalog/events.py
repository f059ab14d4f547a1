"""From products to the events that others copy: each carries the whole product."""

from typing import Any

from shop.catalog.model import Product
from shop.contracts.products import ProductCreated, ProductUpdated


def created(product: Product) -> ProductCreated:
    """The product entered the catalog."""
    return ProductCreated(**_whole(product))


def updated(product: Product) -> ProductUpdated:
    """The product has a new version."""
    return ProductUpdated(**_whole(product))


def _whole(product: Product) -> dict[str, Any]:
    details = product.details
    return {
        "sku": product.sku,
        "name": details.name,
        "category": details.category,
        "supplier": details.supplier,
        "unit": details.unit,
        "price": details.price,
        "available": details.available,
        "version": product.version,
        "at": product.updated_at,
    }
