from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from backstay.messaging import event_spec
from shop.catalog import events
from shop.catalog.model import Details, Product
from shop.contracts.products import ProductCreated, ProductUpdated
from shop.kernel import Money

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DETAILS = Details(
    name="Chai", category="Beverages", price=Money.of("18.00"), available=False, supplier="Exotic", unit="10 boxes"
)


def test_an_event_is_the_whole_product():
    """Who keeps a copy needs nothing but the newest event."""
    product = replace(Product.new("NW-001", DETAILS, now=NOW), version=7)

    event = events.updated(product)

    assert isinstance(event, ProductUpdated)
    details = Details(
        name=event.name,
        category=event.category,
        price=event.price,
        available=event.available,
        supplier=event.supplier,
        unit=event.unit,
    )
    assert (event.sku, details, event.version, event.at) == ("NW-001", DETAILS, 7, NOW)


def test_an_event_survives_the_wire():
    """What is written is what is read, under the product's key."""
    event = events.created(Product.new("NW-001", DETAILS, now=NOW))

    assert msgspec.json.decode(msgspec.json.encode(event), type=ProductCreated) == event
    assert event_spec(event).key_of(event) == "NW-001"
