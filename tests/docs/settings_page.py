"""Writes docs/reference/settings.md from the settings classes, so that the page is what the code reads.

`python -m tests.docs.settings_page` writes it; a test compares.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta

from backstay.runtime.settings import Address, Expression, FixedAddresses, Settings
from backstay.service import Secret
from shop.kernel.resilience import FILE
from shop.settings import ShopSettings
from shop.topology import SERVICES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"
CLASSES = {"gateway": "GatewaySettings", "discovery": "DiscoverySettings"}  # all others are called Settings
TABLE = "| variable | default | allowed | |\n|---|---|---|---|\n"
TYPES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Secret: "a secret",
    Address: "a URL",
    Expression: "a regular expression",
    FixedAddresses: "URLs",
}

HEAD = """# Settings

Generated from the settings classes by `python -m tests.docs.settings_page`; a test compares. Every service is told
everything by environment variables, read once, when it starts. Durations are seconds, sizes bytes, rates percent, lists
are separated by commas. An empty variable counts as not set, except where text is allowed. All mistakes are reported
together, each with its value and what is allowed, and the service exits with status 2. `./shop config <service>` shows
what an environment gives, secrets masked.

What `make up` itself understands is in [Run it](../how-to/run.md).

"""

POLICIES = """## Policies

`src/shop/kernel/resilience.yaml` has the policies of all calls to others, in Resilience4j's form. Its placeholders are
settings of the service that calls, and these besides:

| variable | default |
|---|---|
"""

TAIL = """## For tests and demonstrations

| variable | |
|---|---|
| `FAULTS` | arms fault points, such as `orders.settle.after-commit=kill`; no effect if not set |
| `FAULTS_FILE` | a file with the same, a line each; read again when it changes |
| `CLOCK_OFFSET` | seconds by which the clock of a process started by `shop run` is wrong |

Leave all three unset in production. `src/backstay/faults.py` says what can be armed.
"""


def page() -> str:
    """The whole page."""
    sections = [f"## Every service but gateway and discovery\n\n{TABLE}{_rows(ShopSettings, Settings)}"]
    for service in SERVICES:
        cls = getattr(importlib.import_module(f"shop.{service.name}.config"), CLASSES.get(service.name, "Settings"))
        rows = _rows(cls, ShopSettings if issubclass(cls, ShopSettings) else Settings)
        sections.append(f"## {service.name}\n\nOwns {service.owns}.\n\n{TABLE}{rows}")
    return HEAD + "\n".join(sections) + "\n" + POLICIES + _placeholders("".join(sections)) + "\n" + TAIL


def _placeholders(told: str) -> str:
    """A row for each placeholder of the policies that is no setting."""
    found = dict(re.findall(r"\$\{([A-Z_]+):([^}]*)\}", FILE.read_text()))
    return "".join(f"| `{name}` | `{default}` |\n" for name, default in found.items() if f"| `{name}` |" not in told)


def _rows(cls: Any, base: Any) -> str:
    """A row for each field that `cls` has beyond `base`."""
    inherited = {field.name for field in fields(base)}
    hints, texts = get_type_hints(cls, include_extras=True), docstrings(cls)
    return "".join(
        f"| `{field.name.upper()}` | {default_of(field)} | {allowed(hints[field.name])} | "
        f"{texts.get(field.name, '')} |\n"
        for field in fields(cls)
        if field.name not in inherited
    )


def docstrings(cls: type) -> dict[str, str]:
    """What is written below each field, in the class or in one that it inherits from."""
    said: dict[str, str] = {}
    for each in reversed([parent for parent in cls.__mro__ if parent is not object]):
        body = ast.parse(dedent(inspect.getsource(each))).body[0]
        assert isinstance(body, ast.ClassDef)
        said |= _pairs(body.body)
    return said


def _pairs(statements: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id, " ".join(str(ast.literal_eval(text.value)).split()).replace("|", "\\|")


def default_of(field: Field[Any]) -> str:
    if field.default is MISSING:
        return "required"
    value = field.default
    if isinstance(value, str) and value.startswith("/"):
        return f"the shop's `{Path(value).name}`"
    if isinstance(value, tuple):
        return f"`{','.join(map(str, value))}`"
    if isinstance(value, float):
        return f"`{value:.10g}`"
    return "" if value == "" else f"`{value}`"


def allowed(kind: Any) -> str:
    if get_origin(kind) is Annotated:
        base, *more = get_args(kind)
        limits = [limit for meta in more if isinstance(meta, Meta) for limit in _limits(meta)]
        return " ".join([allowed(base), " and ".join(limits)]).strip()
    if get_origin(kind) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(kind))
    if get_origin(kind) is tuple:
        return "a list"
    return TYPES[kind]


def _limits(meta: Meta) -> Iterator[str]:
    for sign, limit in (("≥", meta.ge), (">", meta.gt), ("≤", meta.le), ("<", meta.lt)):
        if limit is not None:
            yield f"{sign} {limit}"


if __name__ == "__main__":
    PAGE.write_text(page())
