"""Which room a test or a benchmark may import: the part of the layout that import-linter can't see."""

import ast
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
ALLOWED = {  # the longest prefix counts; own helpers (tests.*, benchmarks.*) are followed to their own line
    "tests": {"backstay"},
    "tests/shop": {"backstay", "shop"},
    "tests/lab": {"backstay", "shop", "lab"},
    "tests/acceptance": {"backstay", "shop", "lab"},
    "tests/security": {"backstay", "shop", "lab"},
    "tests/upgrade": {"backstay", "shop", "lab"},
    "tests/docs": {"backstay", "shop", "lab"},
    "tests/world.py": {"backstay", "shop", "lab"},
    "benchmarks": {"backstay"},
    "benchmarks/checkout": {"backstay", "lab"},
    "examples": {"backstay"},
}
ROOMS = {"backstay", "shop", "lab"}


def room_of(path: str) -> set[str]:
    """Return what a file may import, by the longest prefix of its path."""
    return ALLOWED[max((prefix for prefix in ALLOWED if path == prefix or path.startswith(f"{prefix}/")), key=len)]


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield absolute imports, and programs that are started as `"-m", "shop"`, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module or ""
        elif isinstance(node, ast.Tuple | ast.List | ast.Call):
            parts = getattr(node, "elts", None) or getattr(node, "args", [])
            words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
            yield from ((node.lineno, str(b)) for a, b in pairwise(words) if a == "-m" and b)


def violations() -> list[str]:
    """Return `file:line: module` for each import of a room that is closed to the file."""
    found = []
    for folder in ("tests", "benchmarks", "examples"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            for line, name in imported(ast.parse(file.read_text())):
                top = name.partition(".")[0]
                if top in ROOMS and top not in room_of(path):
                    found.append(f"{path}:{line}: {name}")
    return found


def test_no_test_or_benchmark_imports_a_room_that_is_closed_to_it() -> None:
    """Tests and benchmarks of the library need the library and backstay.dev, nothing else."""
    assert violations() == []
