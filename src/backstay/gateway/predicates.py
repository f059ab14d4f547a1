"""The conditions of a route, by the names and arguments that Spring Cloud Gateway gives them."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from backstay.gateway.arguments import Arguments
from backstay.gateway.asked import Asked
from backstay.gateway.definitions import Step
from backstay.http.paths import PathPattern, compile_pattern, wildcards

Predicate = Callable[[Asked], bool]

_METHODS = re.compile(r"[A-Z]+")


@dataclass(frozen=True, slots=True)
class Conditions:
    """The compiled conditions of a route; all of them must hold."""

    paths: Sequence[PathPattern] | None
    """Any of these; None if the route has no Path predicate."""
    others: Sequence[Predicate]


def compile_conditions(steps: Sequence[Step], problems: list[str]) -> Conditions:
    """Compile the predicates of a route, noting mistakes."""
    paths: Sequence[PathPattern] | None = None
    others: list[Predicate] = []
    for step in steps:
        if step.name == "Path":
            patterns = _paths(step, problems)
            if paths is None:
                paths = patterns
            else:
                others.append(_any_path(patterns))
        elif step.name in _FACTORIES:
            others.append(_FACTORIES[step.name](step, problems))
        else:
            problems.append(f"{step.where}: unknown predicate {step.name!r}; known: {', '.join(PREDICATES)}")
    return Conditions(paths, others)


def _paths(step: Step, problems: list[str]) -> list[PathPattern]:
    args = _gathered(step, "patterns", "matchTrailingSlash", problems)
    slash = args.flag("matchTrailingSlash", True)
    patterns = []
    for text in args.texts("patterns"):
        try:
            patterns.append(compile_pattern(text, trailing_slash=slash))
        except ValueError as error:
            args.problem(str(error))
    return patterns


def _gathered(step: Step, name: str, flag: str, problems: list[str]) -> Arguments:
    """Arguments whose shortcut form is a list, with an optional flag as its last element."""
    if not isinstance(step.args, Sequence) or not step.args or step.args[-1] not in ("true", "false"):
        return Arguments(step, (name, flag), problems, gather=True)
    *values, last = step.args
    return Arguments(Step(step.name, {name: values, flag: last}, step.where), (name, flag), problems)


def _any_path(patterns: Sequence[PathPattern]) -> Predicate:
    def matches(asked: Asked) -> bool:
        return any(path_matches(pattern, asked) for pattern in patterns)

    return matches


def path_matches(pattern: PathPattern, asked: Asked) -> bool:
    """Return whether the pattern matches, from scratch; keeps its variables."""
    if pattern.match is None:
        prefix = "/" + "/".join(pattern.literal)
        return not pattern.literal or asked.path == prefix or asked.path.startswith(prefix + "/")
    variables = pattern.match(asked.path)
    if variables is None:
        return False
    asked.variables |= variables
    return True


def _method(step: Step, problems: list[str]) -> Predicate:
    args = Arguments(step, ("methods",), problems, gather=True)
    methods = args.texts("methods")
    for method in methods:
        if not _METHODS.fullmatch(method):
            args.problem(f"{method!r} must be a method in capitals, such as GET")
    wanted = frozenset(method.encode() for method in methods)
    return lambda asked: asked.method in wanted


def _host(step: Step, problems: list[str]) -> Predicate:
    args = Arguments(step, ("patterns",), problems, gather=True)
    patterns = []
    for text in args.texts("patterns"):
        try:
            patterns.append((":" in text, re.compile(_host_source(text), re.IGNORECASE)))
        except (ValueError, re.error) as error:
            args.problem(f"{text!r} isn't a host pattern: {error}")

    def matches(asked: Asked) -> bool:
        host = asked.host.decode("latin-1")
        name = re.sub(r":\d+$", "", host)
        for with_port, pattern in patterns:
            found = pattern.fullmatch(host if with_port else name)
            if found is not None:
                asked.variables |= found.groupdict("")
                return True
        return False

    return matches


def _host_source(text: str) -> str:
    """Ant patterns between dots: `*` within a label, `**` any labels."""
    return r"\.".join("(?:[^:]*)" if label == "**" else wildcards(label, ".", text) for label in text.split("."))


def _header(step: Step, problems: list[str]) -> Predicate:
    args = Arguments(step, ("header", "regexp"), problems)
    name = args.text("header").lower().encode()
    pattern = args.pattern("regexp", "")

    def matches(asked: Asked) -> bool:
        value = asked.headers.get(name)
        if value is None:
            return False
        return pattern is None or pattern.fullmatch(value.strip().decode("latin-1")) is not None

    return matches


def _query(step: Step, problems: list[str]) -> Predicate:
    args = Arguments(step, ("param", "regexp"), problems)
    name = args.text("param")
    pattern = args.pattern("regexp", "")

    def matches(asked: Asked) -> bool:
        values = asked.parameters.get(name)
        if values is None:
            return False
        return pattern is None or any(pattern.fullmatch(value) for value in values)

    return matches


def _cookie(step: Step, problems: list[str]) -> Predicate:
    args = Arguments(step, ("name", "regexp"), problems)
    name = args.text("name")
    pattern = args.pattern("regexp")

    def matches(asked: Asked) -> bool:
        value = asked.cookies.get(name)
        return value is not None and pattern is not None and pattern.fullmatch(value) is not None

    return matches


_FACTORIES: dict[str, Callable[[Step, list[str]], Predicate]] = {
    "Cookie": _cookie,
    "Header": _header,
    "Host": _host,
    "Method": _method,
    "Query": _query,
}

PREDICATES = tuple(sorted([*_FACTORIES, "Path"]))
"""The names that a file may use."""
