"""The events as an AsyncAPI 3 document: topics, messages, headers and keys, for people and for generators."""

import inspect
from collections.abc import Mapping
from typing import Any

import msgspec

from backstay.messaging import Event, event_spec
from shop.contracts.published import EVENTS

VERSION = "1.0.0"
DESCRIPTION = """Everything the shop says about itself. One topic per kind of aggregate; the events of one aggregate
share a key and arrive in order. Delivery is at least once: the header `id` is the same for every delivery of an event.
Readers ignore fields they don't know; an incompatible change is a new type that ends in `.v2`."""
_TEXT = {"type": "string"}
_KEPT = {"cleanup.policy": ["delete"], "retention.ms": -1}
HEADERS: dict[str, Any] = {
    "type": "object",
    "description": "CloudEvents 1.0 in Kafka's binary mode. A reader needs `id` and `ce_type`, no more.",
    "required": ["id", "ce_type"],
    "properties": {
        "id": {**_TEXT, "format": "uuid", "description": "the event, however often it is delivered"},
        "ce_type": {**_TEXT, "description": "the type of the event"},
        "ce_id": {**_TEXT, "format": "uuid", "description": "the same as `id`"},
        "ce_specversion": {**_TEXT, "const": "1.0"},
        "ce_source": {**_TEXT, "description": "the service that wrote it, such as /service/orders"},
        "ce_subject": {**_TEXT, "description": "the aggregate, the same as the record's key"},
        "ce_partitionkey": {**_TEXT, "description": "the same as the record's key"},
        "ce_time": {**_TEXT, "format": "date-time"},
        "content-type": {**_TEXT, "const": "application/json"},
        "traceparent": {**_TEXT, "description": "W3C trace context of the writer"},
    },
}


def asyncapi() -> dict[str, Any]:
    """Return the document, as JSON would hold it."""
    _, schemas = msgspec.json.schema_components(EVENTS, ref_template="#/components/schemas/{name}")
    topics = _by_topic()
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Events of the shop", "version": VERSION, "description": DESCRIPTION.replace("\n", " ")},
        "defaultContentType": "application/json",
        "channels": {topic: _channel(topic, events) for topic, events in topics.items()},
        "operations": {f"publish-{topic}": _operation(topic, events) for topic, events in topics.items()},
        "components": {
            "messages": {event_spec(event).type: _message(event) for event in EVENTS},
            "messageTraits": {"cloudevent": {"headers": HEADERS}},
            "schemas": schemas,
        },
    }


def _by_topic() -> Mapping[str, list[type[Event]]]:
    topics: dict[str, list[type[Event]]] = {}
    for event in EVENTS:
        topics.setdefault(event_spec(event).topic, []).append(event)
    return topics


def _channel(topic: str, events: list[type[Event]]) -> dict[str, Any]:
    types = [event_spec(event).type for event in events]
    return {
        "address": topic,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in types},
        "bindings": {
            "kafka": {"topic": topic, "topicConfiguration": {"cleanup.policy": ["delete"], "retention.ms": -1}}
        },
    }


def _operation(topic: str, events: list[type[Event]]) -> dict[str, Any]:
    messages = [{"$ref": f"#/channels/{topic}/messages/{event_spec(event).type}"} for event in events]
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{topic}"},
        "summary": f"What happens in {topic}.",
        "messages": messages,
    }


def _message(event: type[Event]) -> dict[str, Any]:
    spec = event_spec(event)
    return {
        "name": spec.type,
        "title": event.__name__,
        "summary": inspect.cleandoc(event.__doc__ or spec.type),
        "contentType": "application/json",
        "traits": [{"$ref": "#/components/messageTraits/cloudevent"}],
        "payload": {"$ref": f"#/components/schemas/{event.__name__}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": f"`{spec.key}`"}}},
    }
