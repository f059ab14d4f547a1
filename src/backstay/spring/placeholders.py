"""`${name:default}` as Spring resolves it: nested names and defaults, an error for a name that nothing defines."""

from collections.abc import Callable, Collection

MAX_DEPTH = 20
MAX_LENGTH = 100_000  # characters of a value; placeholders that hold placeholders can multiply


class Unresolved(ValueError):
    """A placeholder has neither a value nor a default."""


def resolve(text: str, get: Callable[[str], str | None], *, keep: Collection[str] = (), depth: int = 0) -> str:
    """Return the text with every placeholder replaced; raises Unresolved.

    get: the value of a name, None without one. keep: names that stay as they are if they have no value (`${segment}`
    of a named group). `$\\{` is not a placeholder, and `\\${name}` stays as `${name}`.
    """
    if depth > MAX_DEPTH:
        raise Unresolved(f"{text!r} refers to itself")
    result: list[str] = []
    at = 0
    while (start := text.find("${", at)) >= 0:
        if start and text[start - 1] == "\\":
            result.append(text[at : start - 1] + "${")
            at = start + 2
            continue
        end = _closing(text, start + 2)
        if end < 0:
            break
        result.append(text[at:start])
        result.append(_value(text[start + 2 : end], get, keep, depth))
        if sum(map(len, result)) > MAX_LENGTH:
            raise Unresolved(f"{text[:40]!r}… is longer than {MAX_LENGTH} characters")
        at = end + 1
    result.append(text[at:])
    return "".join(result)


def _closing(text: str, at: int) -> int:
    """Return where the brace that was opened before `at` is closed, or -1."""
    open_braces = 1
    for position in range(at, len(text)):
        if text[position] == "{":
            open_braces += 1
        elif text[position] == "}":
            open_braces -= 1
            if not open_braces:
                return position
    return -1


def _value(inside: str, get: Callable[[str], str | None], keep: Collection[str], depth: int) -> str:
    name, colon, default = inside.partition(":")
    if "${" in name:
        name, colon, default = resolve(inside, get, keep=keep, depth=depth + 1).partition(":")
    name = name.strip()
    found = get(name)
    if found is not None:
        return resolve(found, get, depth=depth + 1)
    if colon:
        return resolve(default, get, keep=keep, depth=depth + 1)
    if name in keep:
        return f"${{{inside}}}"
    raise Unresolved(f"${{{name}}} isn't set and has no default; set {name} or write ${{{name}:default}}")


__all__ = ["Unresolved", "resolve"]
