"""Metrics by name: the dashboard asks for none that doesn't exist, and the page of reference names all."""

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from backstay.db import Database
from backstay.messaging import Consumer, ConsumerStatistics, MemoryBroker
from backstay.outbox import MemoryStore, Relay, RelayStatistics
from backstay.telemetry.metrics import exposition

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/outbox.json").read_text())
PAGE = (ROOT / "docs/reference/metrics.md").read_text()
NAME = re.compile(r"\b(?:backstay|http_server|resilience4j)_\w+")
TEXT = {"problem", "reason", "assigned"}  # told in the health
UNKNOWN = {"backstay_consumer_lag"}  # is not shown before it is known


def exposed() -> set[str]:
    """The names of the series that a service with a relay and a consumer shows."""
    db = Database("bar", dsn="postgresql://x@127.0.0.1:1/x")
    parts = [Relay(MemoryStore(), MemoryBroker(), name="bar", source="/bar"), Consumer("bar", db=db), db]
    text = exposition("bar", [], 0, parts).decode()
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")} | UNKNOWN


def asked(panel: dict[str, Any]) -> set[str]:
    return {name for target in panel.get("targets", ()) for name in NAME.findall(target["expr"])}


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    """A panel of the dashboard that could never show anything would be found out in the night in which it counts."""
    wanted = {name for panel in DASHBOARD["panels"] for name in asked(panel)}

    assert len(wanted) > 30
    assert wanted - exposed() == set()


def test_every_panel_says_what_it_shows() -> None:
    """A panel has a title, a unit and a sentence; panels don't overlap."""
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]

    assert all(panel["title"] and panel["description"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_every_number_of_relay_and_consumer_is_documented() -> None:
    """What an operator sees in a query can be looked up."""
    for kind, record in (("relay", RelayStatistics), ("consumer", ConsumerStatistics)):
        for field in fields(record):
            if field.name not in TEXT:
                assert f"`backstay_{kind}_{field.name}" in PAGE, field.name


def test_the_page_names_nothing_that_is_not_there() -> None:
    """A metric of the outbox that was renamed is renamed in the page too."""
    named = {name for name in NAME.findall(PAGE) if name.startswith(("backstay_relay_", "backstay_consumer_"))}

    assert {name.removesuffix("_seconds") for name in named} - {
        name.removesuffix("_bucket").removesuffix("_seconds") for name in exposed()
    } == set()
