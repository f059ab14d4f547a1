"""The contracts that were released keep their promise."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from backstay.messaging import Event
from shop.contracts.published import EVENTS, incompatibilities, schemas

RELEASED = Path(__file__).parents[3] / "docs" / "reference" / "events.json"


def released() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(RELEASED.read_text())
    return loaded


def test_nothing_released_was_broken() -> None:
    """Whoever reads the published events still can; `python -m shop.contracts` renews the files after an addition."""
    assert incompatibilities(released(), schemas()) == []
    assert released() == schemas(), "an addition: python -m shop.contracts"


def test_every_event_is_published() -> None:
    """No event type of the shop is left out of the reference."""

    def leaves(kind: type[Event]) -> set[type[Event]]:
        below = {leaf for child in kind.__subclasses__() for leaf in leaves(child)}
        return below or ({kind} if kind.__module__.startswith("shop.contracts.") else set())

    assert leaves(Event) == set(EVENTS)


@pytest.mark.parametrize("change", ["field", "type", "required", "event", "topic"])
def test_a_broken_promise_is_found(change: str) -> None:
    """A removed field, a changed type, a new required field, a lost event or a moved topic is reported."""
    current = copy.deepcopy(schemas())
    confirmed = current["components"]["OrderConfirmed"]
    if change == "field":
        del confirmed["properties"]["total"]
    elif change == "type":
        confirmed["properties"]["version"] = {"type": "string"}
    elif change == "required":
        confirmed["required"].append("payment_id")
    elif change == "event":
        del current["events"]["order.confirmed"]
    else:
        current["events"]["order.confirmed"]["topic"] = "sales"

    assert incompatibilities(schemas(), current)
