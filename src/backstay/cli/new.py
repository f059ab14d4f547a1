"""`backstay new`: a service of one's own, whose tests pass."""

import keyword
import re
import sys
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from backstay.cli.common import reported, say
from backstay.errors import ConfigError

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
MAX_NAME = 40
"""Characters: the name is that of a database and a consumer group, too."""


def new(name: str, folder: Path | None = None) -> None:
    """Write a service called NAME into a new folder: HTTP, outbox, consumer, migration, and tests that pass.

    FOLDER is the name by default; it must not exist, or be empty. NAME is lower-case letters, digits and hyphens.
    """
    with reported():
        write(name, folder or Path(name))
    say(f"{folder or name}: a service. Next: cd {folder or name}, pip install -e '.[dev]', pytest")


def write(name: str, folder: Path) -> None:
    """Write the files of a new service; raises ConfigError, and leaves nothing, if that isn't possible."""
    package = name.replace("-", "_")
    problems = []
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        problems.append(
            f"{name!r} can't name a service: 1 to {MAX_NAME} lower-case letters, digits and inner hyphens, "
            "a letter first"
        )
    elif keyword.iskeyword(package) or package in sys.stdlib_module_names or package in ("backstay", "tests"):
        problems.append(f"{name!r} can't name a service: Python has a module or word of that name")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        problems.append(f"{folder} exists already; name another folder, or empty it")
    if problems:
        raise ConfigError(problems)
    try:
        for path, text in _files(name, package):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror or error}") from error


def _files(name: str, package: str) -> list[tuple[Path, str]]:
    found = []
    for file, path in _walk(resources.files("backstay.cli").joinpath("template"), Path()):
        parts = [package if part == "package" else part for part in path.with_suffix("").parts]
        if parts == ["gitignore"]:
            parts = [".gitignore"]
        text = file.read_text(encoding="utf-8").replace("__NAME__", name).replace("__PACKAGE__", package)
        found.append((Path(*parts), text))
    return found


def _walk(folder: Traversable, path: Path) -> list[tuple[Traversable, Path]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        if entry.is_dir():
            found += _walk(entry, path / entry.name)
        elif entry.name.endswith(".txt"):
            found.append((entry, path / entry.name))
    return found
