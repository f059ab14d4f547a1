"""A Spring `application.yml` as one tree: documents merged, dotted keys opened, placeholders resolved."""

from collections.abc import Mapping
from typing import Any

from backstay.errors import ConfigError
from backstay.spring.placeholders import Unresolved, resolve

Tree = dict[str, Any]


def read_document(text: str, environ: Mapping[str, str], *, profiles: frozenset[str] = frozenset()) -> Tree:
    """The merged tree; raises ConfigError for text that isn't YAML or a placeholder without a value."""
    import yaml  # only who reads a file needs it

    try:
        parts = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {error}") from error
    tree: Tree = {}
    for part in parts:
        if part is None:
            continue
        if not isinstance(part, dict):
            raise ConfigError(f"a document must be a mapping of keys, not {type(part).__name__}")
        opened = _opened(part)
        if _applies(opened, profiles):
            _merge(tree, opened)
    problems: list[str] = []
    values = {**_flat(tree), **environ}
    resolved = _resolved(tree, "", values, problems)
    if problems:
        raise ConfigError(problems)
    assert isinstance(resolved, dict)
    return resolved


def canonical(key: object) -> str:
    """Spring's relaxed form of a key: `defaultFilters`, `default_filters` and `default-filters` are the same."""
    return str(key).replace("-", "").replace("_", "").lower()


def lookup(tree: Mapping[str, Any], *path: str) -> Any:
    """The value at a path of keys in any spelling, or None."""
    found: Any = tree
    for name in path:
        if not isinstance(found, Mapping):
            return None
        found = next((value for key, value in found.items() if canonical(key) == canonical(name)), None)
    return found


def _applies(tree: Tree, profiles: frozenset[str]) -> bool:
    wanted = lookup(tree, "spring", "config", "activate", "on-profile")
    return wanted is None or not profiles.isdisjoint(part.strip() for part in str(wanted).split(","))


def _opened(value: Any) -> Any:
    """`{"a.b": 1}` as `{"a": {"b": 1}}`, at every level."""
    if isinstance(value, list):
        return [_opened(each) for each in value]
    if not isinstance(value, dict):
        return value
    tree: Tree = {}
    for key, inner in value.items():
        first, *rest = str(key).split(".")
        opened = _opened(inner)
        for name in reversed(rest):
            opened = {name: opened}
        _merge(tree, {first: opened})
    return tree


def _merge(into: Tree, other: Tree) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        elif not isinstance(value, list) and value is not None:
            flat[prefix + key] = str(value)
    return flat


def _resolved(value: Any, where: str, values: Mapping[str, str], problems: list[str]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(inner, f"{where}.{key}".lstrip("."), values, problems) for key, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner, f"{where}[{i}]", values, problems) for i, inner in enumerate(value)]
    if not isinstance(value, str) or "${" not in value:
        return value
    try:
        return resolve(value, values)
    except Unresolved as error:
        problems.append(f"{where}: {error}")
        return value
