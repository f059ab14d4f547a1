from pathlib import Path

import pytest

from backstay.db import Queries

TEXT = """
-- name: save_order
-- Inserts an order
-- unless it is there already.
INSERT INTO orders VALUES ($1);

-- name: orders
-- All of them.
SELECT * FROM orders -- every one
ORDER BY id
"""


def test_blocks_are_attributes() -> None:
    """A block is an attribute without its comment and its semicolon."""
    sql = Queries(TEXT)

    assert sql.save_order == "INSERT INTO orders VALUES ($1)"
    assert sql.orders == "SELECT * FROM orders -- every one\nORDER BY id"
    assert list(sql) == ["save_order", "orders"]
    assert sql.describe("save_order") == "Inserts an order unless it is there already."
    assert "orders" in dir(sql)


def test_unknown_name() -> None:
    """A misspelt name is an AttributeError that says where it was looked for."""
    sql = Queries(TEXT, source="shop/queries.sql")

    with pytest.raises(AttributeError, match=r"shop/queries\.sql.*save_ordr"):
        sql.save_ordr  # noqa: B018


@pytest.mark.parametrize("text", ["-- name: a\n\n-- name: b\nSELECT 1", "-- name: a-b\nSELECT 1", TEXT + TEXT])
def test_bad_file(text: str) -> None:
    """An empty block, a name that is no identifier, or a name used twice is refused at once."""
    with pytest.raises(ValueError, match="block"):
        Queries(text)


def test_load_from_path_and_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`load` takes a path or a package name."""
    package = tmp_path / "somewhere"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "queries.sql").write_text(TEXT)
    monkeypatch.syspath_prepend(tmp_path)

    assert list(Queries.load("somewhere")) == list(Queries.load(package / "queries.sql"))
