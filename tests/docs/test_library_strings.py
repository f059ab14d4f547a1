"""The library knows nothing of the shop: not in its imports (.importlinter), and not in a word that a user can read."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).parents[2] / "src" / "backstay"
SHOP = re.compile(r"(?<![a-z])shops?(?![a-z])", re.IGNORECASE)


def strings(source: str) -> Iterator[tuple[int, str]]:
    """Yield every string of a module with its line: docstrings and the literal parts of f-strings, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_strings_are_found() -> None:
    """The search below sees docstrings, plain strings and f-strings."""
    source = 'def f(x):\n    """a shop"""\n    return "SHOP-web", f"the {x} shops"\n'

    assert [line for line, text in strings(source) if SHOP.search(text)] == [2, 3, 3]
    assert SHOP.search("workshop") is None


def test_no_string_of_the_library_names_the_shop() -> None:
    """Defaults, messages and docstrings serve every application, not the one of this repository."""
    found = [
        f"{path.relative_to(LIBRARY)}:{line}: {text[:80]!r}"
        for path in sorted(LIBRARY.rglob("*.py"))
        for line, text in strings(path.read_text(encoding="utf-8"))
        if SHOP.search(text)
    ]

    assert found == []
