"""Events carry topic, type and key in their class."""

from uuid import UUID

import msgspec
import pytest

from backstay.messaging import Event, EventSpec, event_spec

ORDER = UUID("0192f0c0-0000-7000-8000-000000000001")


class _OrderEvent(Event, topic="orders", key="order_id"):
    order_id: UUID


class _Confirmed(_OrderEvent, type="order.confirmed"):
    total: int = 0


def test_spec_of_class_and_instance() -> None:
    """Topic and key come from a base class, the type from the class itself."""
    expected = EventSpec("orders", "order.confirmed", "order_id")

    assert expected == event_spec(_Confirmed) == event_spec(_Confirmed(order_id=ORDER))


def test_key_is_the_fields_text() -> None:
    """The record key is the text of the key field."""
    assert str(ORDER) == event_spec(_Confirmed).key_of(_Confirmed(order_id=ORDER))


def test_events_are_frozen() -> None:
    """Nobody changes a fact."""
    with pytest.raises(AttributeError):
        _Confirmed(order_id=ORDER).total = 3  # type: ignore[misc]


def test_json_form_is_the_fields_alone() -> None:
    """Neither topic nor type leaks into the data; unknown fields are ignored when reading."""
    assert msgspec.json.encode(_Confirmed(order_id=ORDER)) == b'{"order_id":"%s","total":0}' % str(ORDER).encode()
    raw = b'{"order_id":"%s","total":4,"later":true}' % str(ORDER).encode()

    assert _Confirmed(order_id=ORDER, total=4) == msgspec.json.decode(raw, type=_Confirmed)


def test_abstract_event_has_no_spec() -> None:
    """A class without a type is neither published nor handled."""
    with pytest.raises(TypeError, match="_OrderEvent is abstract"):
        event_spec(_OrderEvent)


@pytest.mark.parametrize(
    ("keywords", "problem"),
    [
        ({"type": "order.made", "key": "order_id"}, "needs topic"),
        ({"type": "order.made", "topic": "orders"}, "needs topic"),
        ({"type": "OrderMade", "topic": "orders", "key": "order_id"}, "dots and hyphens"),
        ({"type": "order.made", "topic": "orders", "key": "nothing"}, "none of its fields: order_id"),
    ],
)
def test_wrong_declarations_fail_when_declared(keywords: dict[str, str], problem: str) -> None:
    """A mistake in the class statement is found at import, not at the first publish."""
    with pytest.raises(TypeError, match=problem):

        class _Made(Event, **keywords):  # type: ignore[misc]
            order_id: UUID
