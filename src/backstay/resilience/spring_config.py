"""Reads the `resilience4j.*` keys of Spring's configuration: kinds, configs, instances, base configs.

The file is read as Spring Boot reads it (`backstay.spring`): YAML or `.properties`, documents, profiles, relaxed names,
placeholders, environment variables over all. An exception class is found by `errors` (Java's name or any other →
exception type), by the table of common ones, or by the name of one of Python's; a predicate by `functions`. Every
mistake is reported at once, with file, key and what is allowed. Of an instance, each value comes from itself, else from
its base config and the bases of that, else from the config `default`, as in Resilience4j 2.4.
"""

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from backstay.errors import ConfigError
from backstay.resilience.java_errors import JAVA_ERRORS
from backstay.resilience.spring_keys import (
    ALLOWED,
    DISCARDED,
    INSTANCES,
    KEYS,
    OTHER_SECTIONS,
    SECTIONS,
    VOCABULARY,
    WAITS,
)
from backstay.resilience.spring_values import Options, Values, options_of
from backstay.spring import YAML, Configuration, Unresolved, canonical, lookup, text_of

Errors = Mapping[str, type[BaseException]]
Functions = Mapping[str, Callable[..., Any]]
Level = dict[str, tuple[str, Any]]
"""What one place gives of an instance: canonical keys → (key as written, value)."""

DEFAULT = "default"
ROOT = "resilience4j"


def read_file(
    file: str | Path,
    *,
    environ: Mapping[str, str] | None = None,
    errors: Errors | None = None,
    functions: Functions | None = None,
    only: Collection[str] | None = None,
    profiles: Collection[str] | None = None,
) -> dict[str, dict[str, Options]]:
    """Return what `read` finds in a file, and in those of its active profiles beside it."""
    given = os.environ if environ is None else environ
    configuration = Configuration.read_file(file, given, profiles=profiles)
    return _found(configuration, str(file), errors, functions, only)


def read(
    text: str,
    *,
    where: str = "resilience4j configuration",
    environ: Mapping[str, str] | None = None,
    errors: Errors | None = None,
    functions: Functions | None = None,
    only: Collection[str] | None = None,
    profiles: Collection[str] | None = None,
    syntax: str = YAML,
) -> dict[str, dict[str, Options]]:
    """Return the options of each policy, by kind (as in `KEYS`) and instance; `default` is what other names get.

    only: the instances wanted; others in the file aren't looked at. profiles: those active, in place of
    `spring.profiles.active`. syntax: `yaml` or `properties`. Raises ConfigError with every mistake.
    """
    given = os.environ if environ is None else environ
    try:
        configuration = Configuration.read(text, given, profiles=profiles, syntax=syntax)
    except ConfigError as error:
        raise ConfigError([f"{where}: {problem}" for problem in error.problems]) from None
    return _found(configuration, where, errors, functions, only)


def _found(
    configuration: Configuration,
    where: str,
    errors: Errors | None,
    functions: Functions | None,
    only: Collection[str] | None,
) -> dict[str, dict[str, Options]]:
    reader = _Reader(configuration, where, errors or {}, functions or {}, only)
    try:
        root = configuration.section(ROOT, known=VOCABULARY) or {}
    except ConfigError as error:
        raise ConfigError([f"{where}: {problem}" for problem in error.problems]) from None
    if not isinstance(root, Mapping):
        raise ConfigError(f"{where}: {ROOT}: {root!r} is not a mapping; there are: {', '.join(KEYS)}")
    kinds = {canonical(key): (key, section) for key, section in root.items()}
    for kind, (key, _) in kinds.items():
        if kind not in KEYS and kind not in OTHER_SECTIONS:
            reader.problem((ROOT, key), f"unknown; there are: {', '.join(KEYS)}")
    found = {kind: reader.kind(kind, *kinds[kind]) for kind in KEYS if kind in kinds}
    if reader.problems:
        raise ConfigError(list(reader.problems))
    return found


class _Reader:
    """Reads kind after kind and collects what is wrong."""

    def __init__(
        self,
        configuration: Configuration,
        where: str,
        errors: Errors,
        functions: Functions,
        only: Collection[str] | None,
    ) -> None:
        self._configuration = configuration
        self._only = only
        self._where = where
        self.problems: dict[str, None] = {}  # in order, each once
        self.errors: Mapping[str, type[BaseException]] = {**JAVA_ERRORS, **errors}
        self.functions = functions

    def problem(self, path: Collection[str], text: str) -> None:
        """Note a mistake at a path of keys."""
        variable = self._configuration.variable(path)
        origin = f" (from the environment variable {variable})" if variable else ""
        self.problems[f"{self._where}: {'.'.join(path)}: {text}{origin}"] = None

    def resolve(self, path: Collection[str], value: Any) -> Any:
        """Return the value with its placeholders replaced; None, with a note, where one has no value."""
        try:
            if isinstance(value, list):
                return [self._configuration.resolve(each) for each in value]
            return self._configuration.resolve(value)
        except Unresolved as error:
            self.problem(path, str(error))
            return None

    def kind(self, kind: str, key: str, section: Any) -> dict[str, Options]:
        """Return the options of all instances of a kind."""
        path = (ROOT, key)
        if section == "":
            return {}
        if not isinstance(section, Mapping):
            self.problem(path, f"{section!r} is not a mapping with configs and instances")
            return {}
        for each in section:
            if canonical(each) not in map(canonical, SECTIONS[kind]):
                self.problem((*path, each), f"unknown; there are: {', '.join(SECTIONS[kind])}")
        configs = self._entries(kind, (*path, "configs"), lookup(section, "configs"))
        instances: dict[str, Level] = {}
        for name in INSTANCES:
            instances = {**self._entries(kind, (*path, name), lookup(section, name), only=self._only), **instances}
        common = self._tags((*path, "tags"), lookup(section, "tags"))
        result = {
            name: self._options(kind, (*path, "configs", name), values, configs) for name, values in configs.items()
        }
        found = {DEFAULT: result.get(DEFAULT, {})}
        for name, values in instances.items():
            found[name] = self._options(kind, (*path, "instances", name), values, configs)
            found[name]["tags"] = {**common, **found[name].get("tags", {})}
        return found

    def _options(self, kind: str, path: tuple[str, ...], values: Level, configs: Mapping[str, Level]) -> Options:
        whole = self._merged(kind, path, self._levels(kind, path, values, configs))
        tags = self._tags((*path, "tags"), whole["tags"][1]) if "tags" in whole else {}
        options = options_of(kind, Values(self, path, whole))
        return {**options, "tags": tags} if tags else options

    def _tags(self, path: tuple[str, ...], given: Any) -> dict[str, str]:
        if given in (None, ""):
            return {}
        if not isinstance(given, Mapping):
            self.problem(path, f"{given!r} is not a mapping from names to texts")
            return {}
        return {str(key): text_of(self.resolve((*path, str(key)), value)) for key, value in given.items()}

    def _entries(
        self, kind: str, path: tuple[str, ...], entries: Any, *, only: Collection[str] | None = None
    ) -> dict[str, Level]:
        """Return what is given under each name."""
        if entries in (None, ""):
            return {}
        if not isinstance(entries, Mapping):
            self.problem(path, f"{entries!r} is not a mapping from names to settings")
            return {}
        allowed = {canonical(key): key for key in ALLOWED[kind]}
        found: dict[str, Level] = {}
        for name, values in entries.items():
            if only is not None and name not in only:
                continue
            if values not in (None, "") and not isinstance(values, Mapping):
                self.problem((*path, name), f"{values!r} is not a mapping of settings")
                continue
            for key in values or {}:
                if canonical(key) not in allowed:
                    self.problem((*path, name, key), f"unknown; allowed are {', '.join(ALLOWED[kind])}")
            given = values or {}
            found[name] = {canonical(key): (str(key), value) for key, value in given.items() if _is_given(key, value)}
        return found

    def _levels(self, kind: str, path: tuple[str, ...], values: Level, configs: Mapping[str, Level]) -> list[Level]:
        """Return the values of an entry and of the configs below it, the lowest first."""
        name, is_config = path[-1], path[-2] == "configs"
        levels, seen = [values], [name] if is_config else []
        while True:
            base = self._base(kind, path, name, levels[0], configs, is_config=is_config)
            if base is None:
                return levels
            if base in seen:
                self.problem((*path, "baseConfig"), f"goes round in a circle: {' → '.join([*seen, base])}")
                return levels
            seen.append(base)
            levels.insert(0, configs[base])
            if kind == "circuitbreaker" and base == name and not is_config:
                return levels  # a config of the instance's own name; its base isn't followed
            name, is_config = base, True

    def _base(
        self,
        kind: str,
        path: tuple[str, ...],
        name: str,
        values: Level,
        configs: Mapping[str, Level],
        *,
        is_config: bool,
    ) -> str | None:
        """Return the config below one entry: its `baseConfig`, else (see Resilience4j's factories) one by its name."""
        where = (*path, "baseConfig")
        base = text_of(self.resolve(where, values["baseconfig"][1]) or "") if "baseconfig" in values else ""
        if base and kind == "circuitbreaker" and base == name:
            self.problem(where, f"{base!r} is its own name")
        elif base and base not in configs:
            self.problem(where, f"{base!r} isn't among the configs: {', '.join(configs) or 'none'}")
        elif base:
            return base
        elif kind == "circuitbreaker":
            below = None if is_config else name if name in configs else DEFAULT
            return below if below in configs else None
        elif name != DEFAULT and DEFAULT in configs:
            return DEFAULT
        return None

    def _merged(self, kind: str, path: tuple[str, ...], levels: list[Level]) -> Level:
        """Return the values of all levels, a higher one's over a lower one's; what makes up a wait stays together."""
        length, shape, inherited = WAITS.get(kind, ("", (), ()))
        whole: Level = {}
        shapes: Level = {}
        for level in levels:
            if kind == "circuitbreaker":
                self._check_waits(path, level)
            for types, predicate in DISCARDED.get(kind, ()):
                if types in level:
                    whole.pop(predicate, None)
            whole |= {key: value for key, value in level.items() if key not in shape}
            shapes = {key: value for key, value in (shapes | level).items() if key in inherited or key in level}
            given = {key: value for key, value in shapes.items() if key in shape}
            if length in level:
                whole = {key: value for key, value in whole.items() if key not in shape} | given
            elif given:
                Values(self, path, given).check_shape(kind)
        return whole

    def _check_waits(self, path: tuple[str, ...], level: Level) -> None:
        values = Values(self, path, level)
        if values.flag("enableExponentialBackoff") and values.flag("enableRandomizedWait"):
            values.wrong("enableRandomizedWait", "excludes enableExponentialBackoff: enable only one of them")


def _is_given(key: str, value: Any) -> bool:
    """Return whether a value was given: an empty one is none, except for a list, which is emptied by it."""
    return value != "" or canonical(key).endswith("exceptions")


__all__ = ["JAVA_ERRORS", "read", "read_file"]
