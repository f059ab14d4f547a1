"""`${NAME:default}` as Spring resolves it: nested defaults, an error for a name that nothing defines."""

from collections.abc import Mapping


class Unresolved(ValueError):
    """A placeholder has neither a value nor a default."""


def resolve(text: str, values: Mapping[str, str], *, depth: int = 0) -> str:
    """The text with every placeholder replaced; raises Unresolved. `$\\{` is not a placeholder."""
    if depth > 20:
        raise Unresolved(f"{text!r} refers to itself")
    result: list[str] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        end = _closing(text, start + 2)
        if end < 0:
            break
        result.append(text[at:start])
        result.append(_value(text[start + 2 : end], values, depth))
        at = end + 1
    result.append(text[at:])
    return "".join(result)


def _closing(text: str, at: int) -> int:
    """Where the brace that was opened before `at` is closed, or -1."""
    open_braces = 1
    for position in range(at, len(text)):
        if text[position] == "{":
            open_braces += 1
        elif text[position] == "}":
            open_braces -= 1
            if not open_braces:
                return position
    return -1


def _value(inside: str, values: Mapping[str, str], depth: int) -> str:
    name, colon, default = inside.partition(":")
    if "${" in name:
        name, colon, default = resolve(inside, values, depth=depth + 1), "", ""
    name = name.strip()
    if name in values:
        return resolve(values[name], values, depth=depth + 1)
    if not colon:
        raise Unresolved(f"${{{name}}} isn't set and has no default; set {name} or write ${{{name}:default}}")
    return resolve(default, values, depth=depth + 1)
