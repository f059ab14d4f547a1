"""Hooks of the site: pages of the Python API, the list of decisions, names in place of links out of the docs."""

import pkgutil
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LIBRARY = ROOT / "src" / "backstay"
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """Complete the navigation: a page for each package of the library, and one for each decision."""
    config["nav"] = [_completed(entry) for entry in config["nav"]]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Make the pages of the Python API, which are nowhere as files."""
    from mkdocs.structure.files import File

    for package in packages():
        page = f"# {package}\n\n::: {package}\n    options:\n      show_root_heading: false\n"
        files.append(File.generated(config, _page(package), content=page))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Name a file outside of the documentation instead of linking to it: the site doesn't hold it."""
    here = (DOCS / page.file.src_uri).parent

    def named(found: re.Match[str]) -> str:
        target = (here / found[2]).resolve()
        inside = target.is_relative_to(DOCS)
        return found[0] if inside or not target.exists() else f"{found[1]} (`{target.relative_to(ROOT)}`)"

    return _LINK.sub(named, markdown)


def packages() -> list[str]:
    """Return the public packages and modules of the library."""
    found = [module.name for module in pkgutil.iter_modules([str(LIBRARY)])]
    return [f"backstay.{name}" for name in sorted(found) if not name.startswith("_")]


def _page(package: str) -> str:
    return f"reference/api/{package}.md"


def _completed(entry: Any) -> Any:
    if isinstance(entry, dict):
        name, value = next(iter(entry.items()))
        if value == "API":
            return {name: [{package: _page(package)} for package in packages()]}
        if isinstance(value, list):
            return {name: [each for one in value for each in _decisions(one)]}
    return entry


def _decisions(entry: Any) -> list[Any]:
    if entry != "DECISIONS":
        return [_completed(entry)]
    pages = sorted((DOCS / "decisions").glob("0*.md"))
    titles = [_TITLE.search(page.read_text(encoding="utf-8")) for page in pages]
    return [{(t[1] if t else page.stem): f"decisions/{page.name}"} for page, t in zip(pages, titles, strict=True)]
