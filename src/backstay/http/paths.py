"""Paths and the patterns that match them, as Spring's PathPattern does.

A path that two servers could read differently never gets as far as a pattern: see `decoded`. Patterns match the decoded
path; what is forwarded is the path as it was sent.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import unquote_to_bytes

Variables = dict[str, str]
T = TypeVar("T")

_TRICKS = re.compile(r"//|\\|;|/\.{1,2}(?:/|$)|[\x00-\x1f\x7f]")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})|%(?:2[fF]|5[cC]|00|3[bB])")
_VARIABLE = re.compile(r"\{(\*?)(\w+)(?::((?:[^{}]|\{[^{}]*\})*))?\}")


class AmbiguousPath(ValueError):
    """The path could be read in more than one way."""


def decoded(path: str) -> str:
    """Return the path with its escapes resolved; raises AmbiguousPath.

    Dot segments, empty segments, path parameters and encoded slashes are refused: behind us somebody could resolve
    them and serve what the route that we matched doesn't allow.
    """
    if "%" in path:
        if _BAD_ESCAPE.search(path):
            raise AmbiguousPath("the path has an escape that isn't allowed")
        try:
            path = unquote_to_bytes(path).decode("utf-8")
        except UnicodeDecodeError:
            raise AmbiguousPath("the path isn't UTF-8") from None
    if _TRICKS.search(path):
        raise AmbiguousPath("the path has empty or dot segments, a backslash or a semicolon")
    return path


@dataclass(frozen=True, slots=True)
class PathPattern:
    """A compiled pattern."""

    text: str
    literal: tuple[str, ...]
    """The segments before the first that isn't literal."""
    match: Callable[[str], Variables | None] | None
    """None: every path that begins with the literal segments matches."""


def compile_pattern(text: str, *, trailing_slash: bool = True) -> PathPattern:
    """Compile `/a/{b}/*`, `/a/{*rest}`, `/a/**`; raises ValueError that names the mistake."""
    if not text.startswith("/"):
        raise ValueError(f"{text!r} must begin with /")
    segments = text[1:].split("/")
    literal = []
    for segment in segments:
        if not segment or any(c in segment for c in "*?{}"):
            break
        literal.append(segment)
    rest = segments[len(literal) :]
    if rest == ["**"]:
        return PathPattern(text, tuple(literal), None)
    source = "".join(
        _segment_source(segment, last=i == len(segments) - 1, text=text) for i, segment in enumerate(segments)
    )
    try:
        pattern = re.compile(source + ("/?" if trailing_slash and source else ""))
    except re.error as error:
        raise ValueError(f"{text!r} isn't a path pattern: {error}") from None
    return PathPattern(text, tuple(literal), _matcher(pattern))


@dataclass(slots=True)
class _Node(Generic[T]):
    values: list[T] = field(default_factory=list)
    children: "dict[str, _Node[T]]" = field(default_factory=dict)

    def inherit(self, values: Sequence[T], key: Callable[[T], Any]) -> None:
        """Take over the values of the nodes above, sorted, so that one node has all candidates."""
        self.values = sorted([*values, *self.values], key=key)
        for child in self.children.values():
            child.inherit(self.values, key)


class PathTree(Generic[T]):
    """Values under the literal segments that their patterns begin with: only those remain that can match a path."""

    def __init__(self, entries: Sequence[tuple[PathPattern | None, T]], *, key: Callable[[T], Any]) -> None:
        """`entries` pairs patterns with values (None: every path); `key` sorts the candidates."""
        self._root: _Node[T] = _Node()
        for pattern, value in entries:
            node = self._root
            for segment in pattern.literal if pattern is not None else ():
                node = node.children.setdefault(segment, _Node())
            node.values.append(value)
        self._root.inherit((), key)

    def candidates(self, path: str) -> Sequence[T]:
        """Return the values whose literal segments `path` begins with, in their order."""
        node = self._root
        for segment in path[1:].split("/"):
            child = node.children.get(segment)
            if child is None:
                break
            node = child
        return node.values


def _matcher(pattern: re.Pattern[str]) -> Callable[[str], Variables | None]:
    def match(path: str) -> Variables | None:
        found = pattern.fullmatch(path)
        return None if found is None else found.groupdict("")

    return match


def _segment_source(segment: str, *, last: bool, text: str) -> str:
    """Return the regular expression of one segment with the slash before it."""
    if segment == "**" or segment.startswith("{*"):
        if not last:
            raise ValueError(f"{text!r}: {segment} can only be at the end")
        if segment == "**":
            return "(?:/.*)?"
        found = _VARIABLE.fullmatch(segment)
        if found is None:
            raise ValueError(f"{text!r}: {segment} must be {{*name}}")
        return f"(?P<{found[2]}>(?:/.*)?)"
    return "/" + wildcards(segment, "/", text)


def wildcards(text: str, separator: str, whole: str) -> str:
    """`*`, `?` and `{name}` or `{name:regex}` between separators, as a regular expression."""
    result: list[str] = []
    at = 0
    for found in _VARIABLE.finditer(text):
        if found[1]:
            raise ValueError(f"{whole!r}: {found[0]} must be a segment of its own")
        result.append(_literal(text[at : found.start()], separator, whole))
        result.append(f"(?P<{found[2]}>{found[3] or f'[^{re.escape(separator)}]+'})")
        at = found.end()
    result.append(_literal(text[at:], separator, whole))
    return "".join(result)


def _literal(text: str, separator: str, whole: str) -> str:
    if "{" in text or "}" in text:
        raise ValueError(f"{whole!r}: a brace has no partner")
    other = f"[^{re.escape(separator)}]"
    return re.escape(text).replace(r"\*", other + "*").replace(r"\?", other)


def expand(template: str, variables: Variables) -> str:
    """`{name}` in a template replaced by the path variable of that name, empty if there is none."""
    return re.sub(r"\{(\w+)\}", lambda found: variables.get(found[1], ""), template)
