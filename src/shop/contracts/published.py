"""All published event types, their JSON Schemas, and what makes a change to them incompatible."""

from typing import Any

import msgspec

from backstay.messaging import Event, event_spec
from shop.contracts import inventory, notifications, orders, payments, products, users

EVENTS: tuple[type[Event], ...] = (
    users.UserRegistered,
    users.UserRegistrationRepeated,
    users.SessionRevoked,
    products.ProductCreated,
    products.ProductUpdated,
    orders.OrderCreated,
    orders.OrderPaymentPending,
    orders.OrderConfirmed,
    orders.OrderCancelled,
    payments.PaymentCaptured,
    payments.PaymentDeclined,
    payments.PaymentRefunded,
    inventory.InventoryUpdated,
    inventory.InventoryReserved,
    inventory.InventoryRejected,
    inventory.InventoryLow,
    notifications.NotificationSent,
)


def schemas() -> dict[str, Any]:
    """`{"events": {type: {topic, key, schema}}, "components": {name: schema}}`, as JSON Schema 2020-12."""
    references, components = msgspec.json.schema_components(EVENTS, ref_template="#/components/{name}")
    events = {
        event_spec(event).type: {"topic": event_spec(event).topic, "key": event_spec(event).key, "schema": reference}
        for event, reference in zip(EVENTS, references, strict=True)
    }
    return {"events": events, "components": components}


def incompatibilities(released: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Return what a reader of the released contracts could not read any more; empty when they are compatible."""
    problems = []
    for name, event in released["events"].items():
        now = current["events"].get(name)
        if now is None:
            problems.append(f"{name}: the event is gone")
        elif (event["topic"], event["key"]) != (now["topic"], now["key"]):
            problems.append(f"{name}: topic or key changed")
    for name, component in released["components"].items():
        problems += _fields(name, component, current["components"].get(name))
    return problems


def _fields(name: str, released: dict[str, Any], current: dict[str, Any] | None) -> list[str]:
    if current is None:
        return [f"{name}: the structure is gone"]
    problems = []
    now = current.get("properties", {})
    for field, schema in released.get("properties", {}).items():
        if field not in now:
            problems.append(f"{name}.{field}: the field is gone")
        elif _meaning(schema) != _meaning(now[field]):
            problems.append(f"{name}.{field}: {_meaning(schema)} became {_meaning(now[field])}")
    gained = set(current.get("required", ())) - set(released.get("required", ()))
    lost = set(released.get("required", ())) - set(current.get("required", ()))
    problems += [f"{name}.{field}: became required, old events don't have it" for field in sorted(gained)]
    problems += [f"{name}.{field}: became optional, readers rely on it" for field in sorted(lost)]
    return problems


def _meaning(schema: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in ("title", "description", "default")}
