"""A service's configuration as Spring Boot's Environment and Binder see it.

The sources, the first that has a value wins: `SPRING_APPLICATION_JSON`, environment variables in their relaxed form,
files of a profile (`application-dev.yml` beside `application.yml`), documents of the file, the last one first.
Mappings are united over all sources; a list comes from one source as a whole. Documents for other profiles or
platforms are left out. Placeholders are resolved where a value is used, never before.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backstay.errors import ConfigError
from backstay.spring.names import Element, alphanumeric, elements, is_uniform
from backstay.spring.placeholders import resolve
from backstay.spring.profiles import cloud_platform, matches
from backstay.spring.properties import read_properties
from backstay.spring.sources import Node, Source, read_yaml, text_of

Tree = dict[str, Any]

YAML, PROPERTIES = "yaml", "properties"
JSON_VARIABLE = "SPRING_APPLICATION_JSON"
ON_PROFILE = "spring.config.activate.on-profile"
ON_PLATFORM = "spring.config.activate.on-cloud-platform"
_SERVICE_LINK = re.compile(
    r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)?)", re.IGNORECASE
)
"""Variables that Kubernetes sets for each Service, one named `spring-cloud-gateway` included: they are no overrides."""
PROFILE_KEYS = ("active", "include", "default", "group")


class Configuration:
    """Sources of properties in the order of precedence, and what they make of a section.

    profiles: those that are active, in order.
    """

    def __init__(self, sources: Sequence[Source], environ: Mapping[str, str], profiles: Sequence[str] = ()) -> None:
        self._sources = [*_application_json(environ), *sources]
        self._environ = environ
        self.profiles = tuple(profiles)
        self.variables: dict[tuple[str, ...], str] = {}
        """Environment variables among the values of the sections that were read, by alphanumeric path."""

    @classmethod
    def read(
        cls,
        text: str,
        environ: Mapping[str, str],
        *,
        profiles: Collection[str] | None = None,
        syntax: str = YAML,
    ) -> "Configuration":
        """Read one file's text; raises ConfigError. profiles: those active, in place of `spring.profiles.active`."""
        return _chosen([_documents(text, syntax)], environ, profiles)[0]

    @classmethod
    def read_file(
        cls, file: str | Path, environ: Mapping[str, str], *, profiles: Collection[str] | None = None
    ) -> "Configuration":
        """Read a file, and those of the active profiles beside it; raises ConfigError that begins with the file."""
        path = Path(file)
        documents = [_read(path)]
        try:
            found, active = _chosen(documents, environ, profiles)
        except ConfigError as error:
            raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None
        beside = [path.with_name(f"{path.stem}-{profile}{path.suffix}") for profile in active]
        more = [_read(each, of_profile=True) for each in beside if each.is_file()]
        return _chosen([*documents, *more], environ, profiles)[0] if more else found

    def get(self, name: str) -> str | None:
        """Return the text of a property or environment variable, placeholders unresolved; None without it."""
        relaxed = is_uniform(name)
        found = _from_environment(name, self._environ, relaxed=relaxed)
        if found is not None:
            return found
        path = elements(name)
        for source in self._sources:
            nodes = list(source.root.find(path))
            same = relaxed or [node.text for node in nodes] == [each.text for each in path]
            if len(nodes) == len(path) and nodes[-1].value is not None and same:
                return text_of(nodes[-1].value)
        return None

    def resolve(self, value: Any, *, keep: Collection[str] = ()) -> Any:
        """Return a value with its placeholders replaced; raises Unresolved. keep: as in `placeholders.resolve`."""
        return resolve(value, self.get, keep=keep) if isinstance(value, str) and "${" in value else value

    def section(self, *path: str, known: Iterable[str] = ()) -> Any:
        """Return the merged value below a path: a mapping, a list, a scalar, or None; placeholders unresolved.

        known: the keys that may be there, so that environment variables with underscores in place of dashes find them.
        Raises ConfigError where one source has a value and another a mapping, or a list has a gap.
        """
        steps = [Element(part, alphanumeric(part)) for part in path]
        nodes = [nodes[-1] for source in self._sources if len(nodes := list(source.root.find(steps))) == len(steps)]
        overrides = self._overrides(path, nodes, {alphanumeric(key) for key in known})
        found = [overrides, *nodes] if overrides.children or overrides.value is not None else nodes
        problems: list[str] = []
        result = _merged(found, ".".join(path), problems)
        if problems:
            raise ConfigError(problems)
        return result

    def variable(self, path: Iterable[str]) -> str | None:
        """Return the environment variable that gave the value at a path of a section that was read; None if none."""
        return self.variables.get(tuple(alphanumeric(part) for part in path))

    def _overrides(self, path: Sequence[str], nodes: Sequence[Node], known: set[str]) -> Node:
        """Environment variables below a path, as a source."""
        root = Node(path[-1] if path else "")
        prefix = [alphanumeric(part) for part in path]
        for variable in sorted(self._environ):
            tokens = variable.lower().split("_")
            if len(tokens) <= len(prefix) or tokens[: len(prefix)] != prefix or "" in tokens:
                continue
            if _SERVICE_LINK.fullmatch(variable):
                continue
            node, below, where = root, list(nodes), list(prefix)
            rest = tokens[len(prefix) :]
            while rest:
                element, used = _element(rest, below, known)
                node, rest = node.child(element), rest[used:]
                below = [each.children[element.key] for each in below if element.key in each.children]
                where.append(alphanumeric(element.text))
            node.value = self._environ[variable]
            self.variables[tuple(where)] = variable
        return root


def _element(tokens: Sequence[str], nodes: Sequence[Node], known: set[str]) -> tuple[Element, int]:
    """Return the element that the first tokens of a variable name, and how many: the longest that anything knows."""
    if tokens[0].isdecimal() and not any(node.is_mapping for node in nodes):
        return Element(tokens[0], int(tokens[0])), 1
    children = {alphanumeric(each.text): (key, each.text) for node in nodes for key, each in node.children.items()}
    for used in range(len(tokens), 0, -1):
        joined = "".join(tokens[:used])
        if joined in children:
            key, text = children[joined]
            return Element(text, key), used
        if joined in known:
            return Element(joined, joined), used
    return Element(tokens[0], tokens[0]), 1


def _merged(nodes: Sequence[Node], where: str, problems: list[str]) -> Any:
    """Return the value of a name from the nodes that sources have there, the first one's before the others'."""
    mappings = [node for node in nodes if node.is_mapping]
    if mappings:
        problems += [
            f"{where}: is the value {node.value!r} in one place and a mapping in another"
            for node in nodes
            if node.value not in (None, "")
        ]
        return _united([node for node in nodes if node.children], where, problems)
    for node in nodes:
        if node.is_list:
            if sorted(node.children, key=int) != list(range(len(node.children))):
                problems.append(f"{where}: has the elements {sorted(node.children, key=int)}; the list has a gap")
            found = sorted(node.children.items(), key=lambda item: int(item[0]))
            return [_merged([child], f"{where}[{at}]", problems) for at, child in found]
        if node.value is not None:
            return node.value
    return None


def _united(nodes: Sequence[Node], where: str, problems: list[str]) -> Tree:
    texts = {key: child.text for node in nodes for key, child in node.children.items()}  # as the file writes them
    order = dict.fromkeys(key for node in reversed(nodes) for key in node.children)
    found: Tree = {}
    for key in order:
        children = [node.children[key] for node in nodes if key in node.children]
        found[texts[key]] = _merged(children, f"{where}.{texts[key]}".lstrip("."), problems)
    return found


def _application_json(environ: Mapping[str, str]) -> list[Source]:
    text = environ.get(JSON_VARIABLE)
    if not text:
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{JSON_VARIABLE}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{JSON_VARIABLE}: must be an object, not {type(value).__name__}")
    return [Source.of(value)]


def _from_environment(name: str, environ: Mapping[str, str], *, relaxed: bool) -> str | None:
    """Return the variable of that name, or with underscores for dots and dashes, or in capitals."""
    under = name.replace(".", "_")
    tries = [name, under, name.replace("-", "_"), under.replace("-", "_")]
    tries += [each.upper() for each in tries]
    if relaxed:
        tries.append(under.replace("-", "").replace("[", "_").replace("]", "").upper())
    return next((environ[each] for each in tries if each in environ), None)


# -- files and documents ---------------------------------------------------------------------------------------------


def _documents(text: str, syntax: str, *, of_profile: bool = False) -> list[Source]:
    found = read_properties(text) if syntax == PROPERTIES else read_yaml(text)
    problems = [
        f"{key}: Spring Boot 3 refuses it; write {ON_PROFILE}"
        for source in found
        for key in ("spring.profiles",)
        if _strings(source, key)
    ]
    problems += [
        f"{key}: may not be in a document or a file of a profile"
        for source in found
        if of_profile or source.has(ON_PROFILE)
        for key in (f"spring.profiles.{each}" for each in PROFILE_KEYS[:3])
        if source.has(key)
    ]
    if problems:
        raise ConfigError(problems)
    return found


def _read(path: Path, *, of_profile: bool = False) -> list[Source]:
    syntax = PROPERTIES if path.suffix == ".properties" else YAML
    try:
        text = path.read_bytes().decode("latin-1" if syntax == PROPERTIES else "utf-8")
        return _documents(text, syntax, of_profile=of_profile)
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text: byte {error.start}") from error
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from None


def _chosen(
    files: Sequence[Sequence[Source]], environ: Mapping[str, str], profiles: Collection[str] | None
) -> tuple[Configuration, list[str]]:
    """Return the configuration of the documents that apply, and the active profiles."""
    documents = [each for file in files for each in file]
    placed = [each for each in documents if _on_platform(each, documents, environ)]
    common = [each for each in placed if not _strings(each, ON_PROFILE)]
    active = _active(Configuration(common[::-1], environ), profiles)
    problems: list[str] = []
    applying = [each for each in placed if _on_profile(each, active, problems)]
    problems += [
        f"spring.config.import: {place!r} is not read here; put its keys into the file, or mark it optional:"
        for each in applying
        for place in _strings(each, "spring.config.import")
        if not place.startswith("optional:")
    ]
    if problems:
        raise ConfigError(problems)
    return Configuration(applying[::-1], environ, active), active


def _active(common: Configuration, given: Collection[str] | None) -> list[str]:
    """Return the active profiles: those given, else `spring.profiles.active`; included ones and groups besides."""
    section = common.section("spring", "profiles", known=PROFILE_KEYS) or {}
    if not isinstance(section, Mapping):
        section = {}
    named = list(given) if given else _listed(common, section.get("active"))
    chosen = [*named, *_listed(common, section.get("include"))]
    groups = section.get("group") or {}
    found: dict[str, None] = {}
    waiting = (chosen or _listed(common, section.get("default")) or ["default"])[::-1]
    while waiting:
        profile = waiting.pop()
        if profile not in found:
            found[profile] = None
            waiting += _listed(common, groups.get(profile) if isinstance(groups, Mapping) else None)[::-1]
    return list(found)


def _listed(configuration: Configuration, value: Any) -> list[str]:
    parts = value if isinstance(value, list) else [] if value is None else [value]
    texts = [text_of(configuration.resolve(part)) for part in parts]
    return [name for text in texts for part in text.split(",") if (name := part.strip())]


def _strings(source: Source, name: str) -> list[str]:
    """Return the strings at a name: of a list, or separated by commas."""
    path = elements(name)
    nodes = list(source.root.find(path))
    if len(nodes) < len(path):
        return []
    values = [child.value for key, child in nodes[-1].children.items() if isinstance(key, int)] or [nodes[-1].value]
    return [part.strip() for value in values if value is not None for part in text_of(value).split(",") if part.strip()]


def _on_profile(source: Source, active: Collection[str], problems: list[str]) -> bool:
    wanted = _strings(source, ON_PROFILE)
    held = not wanted
    for expression in wanted:
        try:
            held = matches(expression, active) or held
        except ValueError as error:
            problems.append(f"{ON_PROFILE}: {error}")
    return held


def _on_platform(source: Source, documents: Sequence[Source], environ: Mapping[str, str]) -> bool:
    wanted = [alphanumeric(name) for name in _strings(source, ON_PLATFORM)]
    if not wanted:
        return True
    told = Configuration(documents[::-1], environ).get("spring.main.cloud-platform")
    shown = alphanumeric(told) if told else cloud_platform(environ)
    return (shown or "none") in wanted


__all__ = ["PROPERTIES", "YAML", "Configuration", "Tree"]
