"""The pages of reference name everything that the code knows, and nothing that it doesn't."""

import re
from pathlib import Path

from backstay.gateway import FILTERS, PREDICATES
from backstay.service import Service
from shop.topology import TOPICS

ROOT = Path(__file__).parents[2]
GATEWAY = (ROOT / "docs/reference/gateway.md").read_text()
HTTP = (ROOT / "docs/reference/http.md").read_text()
RUN = (ROOT / "docs/how-to/run.md").read_text()
SLUG = re.compile(
    r"""(?:slug\ =\ |slug=|Conflict\(\s*|Problem\(\s*\d+,\s*|Refusal\(\s*\d+,\s*)"([a-z]+(?:-[a-z]+)*)\"""", re.VERBOSE
)
ROUTE = re.compile(r'@(?:get|post|put|patch|delete)\("(/[^"]+)"')


def section(page: str, title: str) -> str:
    """What a page says under a heading."""
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def in_code(text: str) -> set[str]:
    """Every word of a page that is written as code."""
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_predicate_and_filter_of_the_gateway_is_described() -> None:
    """A file that follows the page is read, and the page hides nothing."""
    assert {name for name in in_code(section(GATEWAY, "Predicates")) if name[0].isupper()} == set(PREDICATES)
    assert {name for name in in_code(section(GATEWAY, "Filters")) if name in FILTERS} == set(FILTERS)


def test_every_type_of_problem_is_listed() -> None:
    """A client can look up whatever it is told."""
    code = [
        *ROOT.glob("src/backstay/asgi/*.py"),
        *ROOT.glob("src/backstay/http/*.py"),
        *ROOT.glob("src/backstay/service/*.py"),
        *ROOT.glob("src/backstay/gateway/*.py"),
        *ROOT.glob("src/shop/*/**/*.py"),
    ]
    known = {slug for file in code for slug in SLUG.findall(file.read_text())}

    assert "out-of-stock" in known
    assert known - in_code(HTTP) - in_code(GATEWAY) - {"conflict"} == set()


def test_every_public_route_is_listed() -> None:
    """No endpoint is left out: by its first and its last fixed part, for parameters are written shorter."""
    routes = {route for file in ROOT.glob("src/shop/*/api.py") for route in ROUTE.findall(file.read_text())}
    lines = HTTP.splitlines()

    assert len(routes) > 20
    for route in routes:
        parts = [part for part in route.split("/") if part and "{" not in part]
        assert any(parts[0] in line and parts[-1] in line for line in lines), route


def test_every_topic_is_listed() -> None:
    """Who makes the topics by hand makes all of them."""
    assert set(TOPICS) <= in_code(RUN)


def test_the_service_is_documented_as_it_is() -> None:
    """The parameters that the how-to uses exist."""
    assert {"routes", "owns", "jobs", "settings", "prefix"} <= set(Service.__init__.__annotations__)
