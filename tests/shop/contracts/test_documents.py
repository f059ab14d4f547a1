"""What is published about the events is generated, current, and complete."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backstay.messaging import event_spec
from shop.contracts.__main__ import documents, main
from shop.contracts.asyncapi import asyncapi
from shop.contracts.published import EVENTS

FOLDER = Path(__file__).parents[3] / "docs" / "reference"


@pytest.mark.parametrize("name", ["asyncapi.json", "events.json", "events.md"])
def test_published_documents_are_current(name: str) -> None:
    """`python -m shop.contracts` renews them."""
    assert (FOLDER / name).read_text() == documents()[name]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """A generator that follows the references finds what they promise."""
    document = asyncapi()
    found = list(references(document))
    for reference in found:
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]

    assert len(found) > len(EVENTS)


def test_every_event_is_a_message_of_its_topic() -> None:
    """Type, topic, key and the headers that a reader needs."""
    document = asyncapi()
    for event in EVENTS:
        spec = event_spec(event)
        message = document["components"]["messages"][spec.type]
        assert spec.type in document["channels"][spec.topic]["messages"]
        assert message["bindings"]["kafka"]["key"]["description"] == f"`{spec.key}`"

    assert document["components"]["messageTraits"]["cloudevent"]["headers"]["required"] == ["id", "ce_type"]


def test_an_incompatible_change_is_not_published(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The files stay as they were, and it is said what is wrong."""
    assert main(tmp_path) == 0
    released = json.loads((tmp_path / "events.json").read_text())
    released["components"]["OrderCreated"]["properties"]["gift"] = {"type": "string"}
    (tmp_path / "events.json").write_text(json.dumps(released))

    assert main(tmp_path) == 1
    assert "OrderCreated.gift: the field is gone" in capsys.readouterr().err
    assert json.loads((tmp_path / "events.json").read_text()) == released
