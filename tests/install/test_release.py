"""What keeps a version from being released is found before anything is built."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

CI = Path(__file__).parents[2] / ".ci"


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, CI / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RELEASE = script("release")
WORDING = script("wording")
GOOD = "# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-12-01\n\n### Added\n- Something.\n\n## 1.2.2 - 2026-11-01\n"


def test_a_release_that_is_ready() -> None:
    """A version with a dated section that says something, and nothing left over."""
    assert RELEASE.unreleasable("1.2.3", GOOD) == []


@pytest.mark.parametrize(
    ("version", "changelog", "problem"),
    [
        ("1.2.3.dev0", GOOD, "is not a release"),
        ("1.2.4", GOOD, "no section `## 1.2.4 - YYYY-MM-DD`"),
        ("1.2.2", GOOD, "the section of 1.2.2 is empty"),
        ("1.2.3", GOOD.replace("2026-12-01", "soon"), "no section"),
        ("1.2.3", GOOD.replace("## Unreleased\n", "## Unreleased\n- More.\n"), "move what is under Unreleased"),
    ],
)
def test_a_release_that_is_not_ready(version: str, changelog: str, problem: str) -> None:
    """Each thing that is missing is named."""
    assert any(problem in found for found in RELEASE.unreleasable(version, changelog))


def test_the_version_stands_in_one_place() -> None:
    """The package's own; pyproject.toml reads it from there."""
    source = (CI.parent / "src/backstay/__init__.py").read_text(encoding="utf-8")
    pyproject = (CI.parent / "pyproject.toml").read_text(encoding="utf-8")

    assert RELEASE.released_version(source).count(".") >= 2
    assert 'dynamic = ["version"]' in pyproject
    assert RELEASE.released_version(source) not in pyproject


@pytest.mark.parametrize(
    ("line", "odd"),
    [
        ("Return the lease of that application and id.", False),
        ("Rows being published, and rows acknowledged but not yet deleted.", False),
        ("What a read has brought.", True),
        ("Whether it may go on.", True),
        ("Run whatever nobody else runs.", True),
        ("Tell the registry that we are ready.", True),
        ("Return what the broker said.", True),
    ],
)
def test_odd_first_lines_are_counted(line: str, odd: bool) -> None:
    """Persons, telling and relative clauses."""
    assert WORDING.is_odd(line) is odd
