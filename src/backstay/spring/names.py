"""Property names as Spring reads them: `a.b[0].c`, `a.[my.key]`, and their relaxed forms."""

import re
from dataclasses import dataclass

_UNIFORM = re.compile(r"[a-z0-9][a-z0-9-]*")
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]")

Key = int | str
"""The key of an element: its index, or its canonical form."""


@dataclass(frozen=True, slots=True)
class Element:
    """One part of a name: `text` as written, `key` for comparison."""

    text: str
    key: Key


def canonical(key: object) -> str:
    """Return Spring's relaxed form of a key: `defaultFilters`, `default_filters` and `default-filters` are the same."""
    return str(key).replace("-", "").replace("_", "").lower()


def alphanumeric(key: object) -> str:
    """Return the form of a key that an environment variable can carry: lower-case letters and digits only."""
    return _NOT_ALPHANUMERIC.sub("", str(key).lower())


def is_uniform(name: str) -> bool:
    """Return whether a name is in Spring's canonical form (lower-case kebab), the only one with relaxed comparison."""
    parts = re.sub(r"\[[^\]]*\]", "", name).split(".")
    return all(_UNIFORM.fullmatch(part) for part in parts if part)


def elements(name: str) -> list[Element]:
    """Split a property name at its dots; what is in brackets is an index, or a key that is kept as it is."""
    found: list[Element] = []
    at = 0
    while at < len(name):
        if name[at] == "[" and (end := name.find("]", at)) > 0:
            inside = name[at + 1 : end]
            found.append(Element(inside, int(inside) if inside.isdecimal() else inside))
            at = end + 1 + name.startswith(".", end + 1)
            continue
        ends = [end for end in (name.find(".", at), name.find("[", at + 1)) if end >= 0]
        end = min(ends, default=len(name))
        found.append(Element(name[at:end], canonical(name[at:end])))
        at = end + name.startswith(".", end)
    return found


__all__ = ["Element", "Key", "alphanumeric", "canonical", "elements", "is_uniform"]
