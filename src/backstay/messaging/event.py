"""Events: typed facts that leave a service. Topic, type and key belong to the class, the data to the instance.

    class OrderConfirmed(Event, topic="orders", type="order.confirmed", key="order_id"):
        order_id: UUID

`topic` and `key` are inherited, so a common base may carry them; `type` never is: a class without one is abstract.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, dataclass_transform

import msgspec

_TYPE = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*(?:\.[a-z0-9]+(?:-[a-z0-9]+)*)+")


@dataclass(frozen=True, slots=True)
class EventSpec:
    """Topic, type and key of a class of events.

    topic: the Kafka topic; type: the CloudEvents type, dotted with hyphens; key: the field whose text is the record's
    key, so that all events of one aggregate stay in order.
    """

    topic: str
    type: str
    key: str

    def key_of(self, event: "Event") -> str:
        """Return the record key of that event, as text."""
        return str(getattr(event, self.key))


class _EventMeta(msgspec.StructMeta):
    """Reads topic, type and key from the class statement; every event is frozen and takes keywords only."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        topic: str | None = None,
        type: str | None = None,  # noqa: A002
        key: str | None = None,
        **config: Any,
    ) -> Any:
        config = {"frozen": True, "kw_only": True, **config}
        cls: Any = super().__new__(mcls, name, bases, namespace, **config)
        cls._event_topic = topic or getattr(cls, "_event_topic", None)
        cls._event_key = key or getattr(cls, "_event_key", None)
        cls._event_spec = _spec(cls, type) if type is not None else None
        return cls


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(msgspec.field,))
class Event(msgspec.Struct, metaclass=_EventMeta, frozen=True, kw_only=True):
    """Base class of all events; see the module for how to declare one."""

    if TYPE_CHECKING:

        def __init_subclass__(
            cls,
            *,
            topic: str | None = None,
            type: str | None = None,  # noqa: A002
            key: str | None = None,
            **config: Any,
        ) -> None: ...


def event_spec(event: "Event | type[Event]") -> EventSpec:
    """Topic, type and key of an event or its class; TypeError if the class is abstract."""
    spec: EventSpec | None = event._event_spec  # type: ignore[union-attr]  # set by the metaclass
    if spec is None:
        cls = event if isinstance(event, type) else type(event)
        raise TypeError(f'{cls.__name__} is abstract: declare it with type="…" to publish or handle it')
    return spec


def _spec(cls: Any, type_: str) -> EventSpec:
    name, topic, key = cls.__name__, cls._event_topic, cls._event_key
    if not topic or not key:
        raise TypeError(f"event {name} needs topic=… and key=…, here or on a base class")
    if _TYPE.fullmatch(type_) is None:
        raise TypeError(f"type {type_!r} of event {name} must be lower case words joined by dots and hyphens")
    if key not in cls.__struct_fields__:
        raise TypeError(f"key {key!r} of event {name} is none of its fields: {', '.join(cls.__struct_fields__)}")
    return EventSpec(topic, type_, key)
