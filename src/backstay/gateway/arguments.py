"""The arguments of a predicate or filter, read by type; what is wrong is noted with its key and what is allowed."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from backstay.gateway.definitions import Step
from backstay.spring import canonical

_SIZE = re.compile(r"(\d+)\s*(B|KB|MB|GB)?", re.IGNORECASE)
_UNITS = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}


class Arguments:
    """Reads the arguments of one step. `names` is the order of the shortcut form; `gather` makes the first a list.

    `short`: those of the names that the shortcut form has, if it hasn't all.
    """

    def __init__(
        self,
        step: Step,
        names: Sequence[str],
        problems: list[str],
        *,
        gather: bool = False,
        short: Sequence[str] | None = None,
    ) -> None:
        self._where = f"{step.where} ({step.name})"
        self._names = tuple(names)
        self._problems = problems
        self._values = _by_name(step.args, self._names if short is None else short, gather=gather)
        unknown = [key for key in self._values if canonical(key) not in {canonical(name) for name in names}]
        for key in unknown:
            self.problem(f"unknown argument {key!r}; allowed: {', '.join(names) or 'none'}")
        self._values = {canonical(key): value for key, value in self._values.items()}

    def problem(self, text: str) -> None:
        """Note a mistake."""
        self._problems.append(f"{self._where}: {text}")

    def has(self, name: str) -> bool:
        """Return whether it is given."""
        return self._values.get(canonical(name)) is not None

    def text(self, name: str, default: str | None = None) -> str:
        """Return a string; noted as missing if there is no default."""
        value = self._values.get(canonical(name))
        if value is None:
            if default is None:
                self.problem(f"argument {name} is missing; arguments: {', '.join(self._names)}")
            return default or ""
        if isinstance(value, Mapping | list):
            self.problem(f"argument {name} must be one value, not {value!r}")
            return default or ""
        return _scalar(value)

    def texts(self, name: str) -> list[str]:
        """Return a list of strings; a comma separates them in one string."""
        found = self.words(name, "")
        if not found:
            self.problem(f"argument {name} is missing; at least one value is needed")
        return found

    def words(self, name: str, default: str) -> list[str]:
        """Return a list of strings that may be left out, or empty."""
        value = self._values.get(canonical(name), default)
        given = value if isinstance(value, list) else [] if value is None else _scalar(value).split(",")
        return [_scalar(each).strip() for each in given if _scalar(each).strip()]

    def pattern(self, name: str, default: str | None = None) -> re.Pattern[str] | None:
        """Return a regular expression, in Java's spelling of named groups too."""
        text = self.text(name, default)
        if not text:
            return None
        try:
            return re.compile(text.replace("(?<", "(?P<").replace("(?P<=", "(?<=").replace("(?P<!", "(?<!"))
        except re.error as error:
            self.problem(f"{name}={text!r} isn't a regular expression: {error}")
            return None

    def number(self, name: str, default: float | None = None, *, least: float = 0.0) -> float:
        """Return a number of at least `least`."""
        text = self.text(name, None if default is None else str(default))
        try:
            number = float(text)
        except ValueError:
            number = least - 1
        if number < least and text:
            self.problem(f"{name}={text!r} must be a number of at least {least:g}")
        return max(number, least)

    def whole(self, name: str, default: int, *, least: int = 0) -> int:
        """Return a whole number of at least `least`."""
        text = self.text(name, str(default))
        number = int(text) if text.isdecimal() else least - 1
        if number < least:
            self.problem(f"{name}={text!r} must be a whole number of at least {least}")
        return max(number, least)

    def flag(self, name: str, default: bool) -> bool:
        """True or false."""
        text = self.text(name, str(default)).lower()
        if text not in ("true", "false"):
            self.problem(f"{name}={text!r} must be true or false")
        return text == "true"

    def size(self, name: str, default: int) -> int:
        """Return a size in bytes: `5000000`, `512KB`, `5MB`."""
        text = self.text(name, str(default))
        found = _SIZE.fullmatch(text.strip())
        if found is None:
            self.problem(f"{name}={text!r} must be a size such as 5000000, 512KB or 5MB")
            return default
        return int(found[1]) * _UNITS[(found[2] or "").upper()]


def _by_name(args: Mapping[str, Any] | Sequence[str], names: Sequence[str], *, gather: bool) -> dict[str, Any]:
    if isinstance(args, Mapping):
        named = {key: value for key, value in args.items() if not key.startswith("_genkey_")}
        in_order = [_scalar(value) for key, value in args.items() if key.startswith("_genkey_")]
        return {**_in_order(in_order, names, gather=gather), **_flattened(named)}
    return _in_order(args, names, gather=gather)


def _in_order(values: Sequence[str], names: Sequence[str], *, gather: bool) -> dict[str, Any]:
    if not values:
        return {}
    if gather:
        return {names[0]: list(values)}
    if not names:
        return {f"#{i + 1}": value for i, value in enumerate(values)}
    last = len(names) - 1
    named: dict[str, Any] = dict(zip(names, values, strict=False))
    if len(values) > len(names):
        named[names[last]] = ",".join(values[last:])  # the last one may hold commas
    return named


def _flattened(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": each for inner, each in _flattened(value).items()}
        else:
            flat[key] = value
    return flat


def _scalar(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
