"""Java's `.properties` format, with Spring Boot's separator of documents (`#---`)."""

import re

from backstay.errors import ConfigError
from backstay.spring.sources import MAX_NODES, Source

_ESCAPES = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPED = re.compile(r"\\(u[0-9A-Fa-f]{4}|u|.)", re.DOTALL)
_PAIR = re.compile(r"((?:\\.|[^\\:=\s])*)\s*[:=]?\s*(.*)", re.DOTALL)


def read_properties(text: str) -> list[Source]:
    """Return the documents of the text; raises ConfigError for a malformed escape or far too many keys."""
    parts: list[Source] = [Source()]
    count = 0
    for line in _logical_lines(text):
        if line is None:
            parts.append(Source())
            continue
        count += 1
        if count > MAX_NODES:
            raise ConfigError(f"more than {MAX_NODES} properties")
        pair = _PAIR.fullmatch(line)
        assert pair is not None
        parts[-1].put(_unescaped(pair[1]), _unescaped(pair[2]))
    return [part for part in parts if part.root.children]


def _logical_lines(text: str) -> "list[str | None]":
    """Lines with their continuations; None where a document ends."""
    lines = re.split(r"\r\n|\r|\n", text)
    found: list[str | None] = []
    at = 0
    while at < len(lines):
        line = lines[at].lstrip(" \t\f")
        if _separates(lines, at):
            found.append(None)
        elif line and line[0] not in "#!":
            while _continues(line) and at + 1 < len(lines):
                at += 1
                line = line[:-1] + lines[at].lstrip(" \t\f")
            found.append(line[:-1] if _continues(line) else line)
        at += 1
    return found


def _separates(lines: list[str], at: int) -> bool:
    """`#---` or `!---` alone on its line, and no comment right before or after it."""
    mark = lines[at].rstrip()
    near = [lines[i] for i in (at - 1, at + 1) if 0 <= i < len(lines)]
    return mark in ("#---", "!---") and not any(line.startswith(mark[0]) for line in near)


def _continues(line: str) -> bool:
    return (len(line) - len(line.rstrip("\\"))) % 2 == 1


def _unescaped(text: str) -> str:
    def one(found: "re.Match[str]") -> str:
        escape = found[1]
        if escape == "u":
            raise ConfigError(f"{text!r}: \\u must be followed by four hexadecimal digits")
        return chr(int(escape[1:], 16)) if len(escape) > 1 else _ESCAPES.get(escape, escape)

    return _ESCAPED.sub(one, text)


__all__ = ["read_properties"]
