"""The documents tell the truth: their examples run, their links lead somewhere, their commands exist.

A Python block in a page is run as it stands (top-level await allowed), each page in a namespace of its own. A comment
before the block changes that: `<!-- file: examples/coffee/main.py -->`, it is that file; `<!-- needs: a database -->`,
it is run with the address of an empty one as DSN; `<!-- needs: anything else -->`, it is only compiled.
"""

import ast
import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
BLOCK = re.compile(r"(?:<!-- (file|needs): (.+?) -->\n+)?```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
A_DATABASE = "a database"
MAKE = re.compile(r"\bmake ([a-z][a-z-]*)")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run(code: str, page: Path, namespace: dict[str, Any]) -> None:
    compiled = compile(code, name(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if compiled.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(compiled, namespace))
    else:
        exec(compiled, namespace)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_run(page: Path) -> None:
    """What a reader copies works."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for kind, what, code in BLOCK.findall(page.read_text()):
        if kind == "file":
            assert (ROOT / what).read_text().strip() == code.strip(), f"{name(page)} shows another {what}"
        elif kind == "needs":
            compile(code, name(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        else:
            run(code, page, namespace)


@pytest.mark.parametrize("page", [page for page in PAGES if f"needs: {A_DATABASE}" in page.read_text()], ids=name)
def test_examples_run_on_a_database(page: Path, database: str) -> None:
    """What a reader copies works, also where it needs a database."""
    for kind, what, code in BLOCK.findall(page.read_text()):
        if (kind, what) == ("needs", A_DATABASE):
            run(code, page, {"__name__": "page", "DSN": database})


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    """No link within the repository is dead."""
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]

    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_commands_exist() -> None:
    """Every `make` command that a page names is one."""
    known = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    in_code = re.compile(r"`[^`\n]*`|```.*?```", re.DOTALL)
    named = {
        (name(page), command)
        for page in PAGES
        for code in in_code.findall(page.read_text())
        for command in MAKE.findall(code)
    }

    assert {(page, command) for page, command in named if command not in known} == set()
