"""SQL lives in `.sql` files, as named blocks:

-- name: save_order
-- Inserts an order unless it is there already.
INSERT INTO orders ...
"""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

_NAME = re.compile(r"^-- name: *(\S+) *$", re.MULTILINE)
DEFAULT_FILE = "queries.sql"


class Queries:
    """The named blocks of one file, as attributes: `sql.save_order`."""

    def __init__(self, text: str, *, source: str = "queries") -> None:
        self._source = source
        self._blocks: dict[str, str] = {}
        self._descriptions: dict[str, str] = {}
        parts = _NAME.split(text)[1:]
        for name, block in zip(parts[::2], parts[1::2], strict=True):
            self._add(name, block)

    @classmethod
    def load(cls, where: Path | str) -> "Queries":
        """Read `queries.sql` of a package (`Queries.load(__package__)`), or the file at a path."""
        if isinstance(where, Path) or where.endswith(".sql"):
            return cls(Path(where).read_text(encoding="utf-8"), source=str(where))
        text = resources.files(where).joinpath(DEFAULT_FILE).read_text(encoding="utf-8")
        return cls(text, source=f"{where}/{DEFAULT_FILE}")

    def __getattr__(self, name: str) -> str:
        try:
            return self.__dict__["_blocks"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(f"{self.__dict__.get('_source')} has no block '-- name: {name}'") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocks)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._blocks]

    def __repr__(self) -> str:
        return f"Queries({self._source!r}: {', '.join(self._blocks)})"

    def describe(self, name: str) -> str:
        """Return the comment that follows the block's name."""
        return self._descriptions[name]

    def _add(self, name: str, block: str) -> None:
        if not name.isidentifier() or name in self._blocks:
            raise ValueError(f"{self._source}: block name {name!r} is taken or not an identifier")
        lines = block.strip().splitlines()
        comments = 0
        while comments < len(lines) and lines[comments].startswith("--"):
            comments += 1
        sql = "\n".join(lines[comments:]).strip().rstrip(";")
        if not sql:
            raise ValueError(f"{self._source}: block {name!r} holds no SQL")
        self._blocks[name] = sql
        self._descriptions[name] = " ".join(line.lstrip("- ") for line in lines[:comments])
