"""Metrics by name: the dashboard asks for none that doesn't exist, and the page of reference names all."""

import json
import re
from pathlib import Path
from typing import Any

from tests.docs.metric_names import all_families
from tests.docs.metric_pages import LARGE, pages

from backstay.db import Database
from backstay.messaging import Consumer, MemoryBroker
from backstay.outbox import MemoryStore, Relay
from backstay.telemetry.metrics import exposition

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "deploy/grafana/outbox.json").read_text())
PAGE = (ROOT / "docs/reference/metrics.md").read_text()
NAME = re.compile(r"\b(?:backstay|http_server|resilience4j)_\w+")
NAMES = re.compile(r"`((?:backstay|http_server|resilience4j|discovery)_\w+)`")
LIBRARY = {"python_info"}
MANAGEMENT = {
    "backstay_gateway_in_flight",
    "backstay_gateway_upstream_open",
    "backstay_gateway_upstream_idle",
    "backstay_gateway_revoked_sessions",
    "backstay_gateway_turned_away_total",
    "backstay_gateway_turned_away_of_address_total",
    "backstay_gateway_limited_of_address_total",
    "backstay_gateway_access_log_dropped_total",
}  # numbers that the gateway's management adds
UNKNOWN = {"backstay_consumer_lag"}  # is not shown before it is known


def exposed() -> set[str]:
    """The names of the series that a service with a relay and a consumer shows."""
    db = Database("bar", dsn="postgresql://x@127.0.0.1:1/x")
    parts = [Relay(MemoryStore(), MemoryBroker(), name="bar", source="/bar"), Consumer("bar", db=db), db]
    text = exposition("bar", [], 0, parts).decode()
    return {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")} | UNKNOWN


def families_of(page: str) -> set[str]:
    """The families of a page, without those that Prometheus' library has of every process."""
    return {name for name in re.findall(r"^# TYPE (\S+) ", page, re.MULTILINE) if not name.startswith("process_")}


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


def test_every_family_is_documented() -> None:
    """What an operator sees in a query can be looked up, whatever part shows it."""
    named = set(NAMES.findall(PAGE))

    assert all_families() - named == set()
    assert {family for page in pages().values() for family in families_of(page)} - named - LIBRARY == set()


def test_the_page_names_nothing_that_is_not_there() -> None:
    """A metric that was renamed is renamed in the page too."""
    shown = all_families() | {family for page in pages().values() for family in families_of(page)} | MANAGEMENT

    assert set(NAMES.findall(PAGE)) - shown == set()


def test_every_family_has_a_type_and_a_help() -> None:
    """A counter ends with `_total` and nothing else does; no series is there twice; numbers have all their digits."""
    for page in pages().values():
        types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
        helps = dict(re.findall(r"^# HELP (\S+) (.+)$", page, re.MULTILINE))
        series = [line.rpartition(" ")[0] for line in page.splitlines() if not line.startswith("#")]

        assert set(types) == set(helps)
        assert {name for name, kind in types.items() if kind == "counter"} == {
            name for name in types if name.endswith("_total")
        }
        assert len(series) == len(set(series))
        assert float(LARGE) in {float(line.rpartition(" ")[2]) for line in page.splitlines() if line[0] != "#"}
