"""Count first lines of docstrings that don't say what the field says, and fail above a ceiling that may only fall.

Two counts over `src`: functions whose docstring doesn't begin with an imperative or name a property (ruff D401), and
first lines with a pattern that CONTRIBUTING.md names: persons in place of components, telling and asking in place of
reporting and requesting, a relative clause in place of a sentence.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOT_IMPERATIVE = 205
"""Most functions that D401 may find."""
PATTERNS = 0.03
"""Largest share of first lines with one of the patterns."""

PERSONS = re.compile(r"\b(whoever|somebody|nobody|everybody|anybody)\b", re.IGNORECASE)
TELLING = re.compile(r"\b(tells?|told|hears?|heard|says?|said|asks?|asked|looks?|looked)\b", re.IGNORECASE)
RELATIVE = re.compile(r"^(What|Who|Whoever|Whether|Where|How|Which|Whose|Whom|When)\b")
D401 = (
    "--isolated",
    "--select=D401",
    "--output-format=json",
    "--config=target-version='py311'",
    "--config=lint.pydocstyle.property-decorators=['property', 'functools.cached_property']",
)


def main() -> int:
    """Compare both counts with their ceilings; returns the exit status."""
    lines = list(first_lines(ROOT / "src"))
    found = [each for each in lines if is_odd(each[2])]
    share = len(found) / len(lines)
    command = [str(ROOT / ".venv/bin/ruff"), "check", *D401, str(ROOT / "src")]
    unruly = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    print(f"wording: {len(unruly)} functions not in the imperative (ceiling {NOT_IMPERATIVE}), ", end="")
    print(f"{share:.1%} of {len(lines)} first lines with a pattern (ceiling {PATTERNS:.1%})")
    if share > PATTERNS:
        print(*(f"{path}:{row}: {text}" for path, row, text in found), sep="\n")
    if len(unruly) > NOT_IMPERATIVE:
        print(*(f"{each['filename']}:{each['location']['row']}: D401" for each in unruly), sep="\n")
    return int(share > PATTERNS or len(unruly) > NOT_IMPERATIVE)


def is_odd(line: str) -> bool:
    """Return whether a first line has one of the patterns."""
    return bool(PERSONS.search(line) or TELLING.search(line) or RELATIVE.match(line))


def first_lines(folder: Path) -> Iterator[tuple[Path, int, str]]:
    """Yield file, row and first line of each docstring below a folder."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if documented and (text := ast.get_docstring(node)):
                yield path.relative_to(ROOT), node.body[0].lineno, text.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
