"""A new service: every file is named after it, and mistakes are named before anything is written."""

from pathlib import Path

import pytest

from backstay.cli.new import write
from backstay.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("Orders", "lower-case letters"),
        ("1st", "a letter first"),
        ("a-", "inner hyphens"),
        ("../x", "can't name a service"),
        ("x" * 41, "1 to 40"),
        ("class", "Python has a module or word of that name"),
        ("json", "Python has a module or word of that name"),
        ("backstay", "Python has a module or word of that name"),
    ],
)
def test_a_name_that_is_none(tmp_path: Path, name: str, problem: str) -> None:
    """Refused with what is allowed; nothing is written."""
    with pytest.raises(ConfigError, match=problem):
        write(name, tmp_path / "here")

    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    """A folder with something in it, and a file; both problems of a call are named together."""
    (tmp_path / "mine").write_text("precious")
    for folder in (tmp_path, tmp_path / "mine"):
        with pytest.raises(ConfigError, match="exists already"):
            write("orders", folder)
    with pytest.raises(ConfigError) as refused:
        write("Orders", tmp_path)

    assert len(refused.value.problems) == 2
    assert (tmp_path / "mine").read_text() == "precious"


def test_every_file_is_named_after_the_service(tmp_path: Path) -> None:
    """No placeholder is left; hyphens are underscores in Python's names."""
    write("tea-shop", tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())

    assert "tea_shop/main.py" in files
    assert "tea_shop/migrations/0001_orders.sql" in files
    assert ".gitignore" in files
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "__PACKAGE__" in path.read_text()]
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and "__NAME__" in path.read_text()]
