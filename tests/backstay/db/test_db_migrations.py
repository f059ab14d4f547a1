from pathlib import Path

import pytest

from backstay.db import Component, MigrationError
from backstay.db.migrations import pending, read


def write(folder: Path, **files: str) -> Component:
    for name, sql in files.items():
        (folder / f"{name}.sql").write_text(sql)
    return Component("orders", folder)


def test_read_in_order(tmp_path: Path) -> None:
    """Migrations come by version, whatever the folder's order."""
    component = write(tmp_path, **{"0002_b": "SELECT 2", "0001_a": "SELECT 1", "0010_c": "SELECT 3"})

    assert [str(one) for one in read(component)] == ["orders/0001_a", "orders/0002_b", "orders/0010_c"]


@pytest.mark.parametrize("name", ["1_short", "0001 spaces", "0001_UPPER"])
def test_bad_name(tmp_path: Path, name: str) -> None:
    """A file whose name isn't NNNN_words.sql is an error, not skipped."""
    with pytest.raises(MigrationError, match="NNNN_words"):
        read(write(tmp_path, **{name: "SELECT 1"}))


def test_version_twice(tmp_path: Path) -> None:
    """Two files of one version are an error that names both."""
    with pytest.raises(MigrationError, match=r"0001_b\.sql.*0001_a"):
        read(write(tmp_path, **{"0001_a": "SELECT 1", "0001_b": "SELECT 1"}))


def test_missing_folder(tmp_path: Path) -> None:
    """A folder that isn't there is an error, not an empty set."""
    with pytest.raises(MigrationError, match="no folder"):
        read(Component("orders", tmp_path / "none"))


def test_pending(tmp_path: Path) -> None:
    """What is applied is left out; versions that this code doesn't know are no error."""
    first, second = read(write(tmp_path, **{"0001_a": "SELECT 1", "0002_b": "SELECT 2"}))
    applied = {("orders", 1): first.checksum, ("orders", 9): "newer", ("other", 2): "x"}

    assert pending([first, second], applied) == [second]


def test_changed_file(tmp_path: Path) -> None:
    """A file that was changed after it had been applied is an error."""
    [first] = read(write(tmp_path, **{"0001_a": "SELECT 1"}))

    with pytest.raises(MigrationError, match="0001_a was changed"):
        pending([first], {("orders", 1): "another"})
