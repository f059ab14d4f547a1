"""Options of a command made from a settings class: each field is an option, and an environment variable.

`max_body: int` of the class is `--max-body` and `MAX_BODY`. An option that is given precedes its variable.
"""

import ast
import inspect
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from itertools import pairwise
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from backstay.errors import ConfigError

if TYPE_CHECKING:
    from backstay.runtime.settings import Settings


def described(cls: type) -> dict[str, str]:
    """Return what is written below each field, in the class or in one that it inherits from."""
    found: dict[str, str] = {}
    for each in reversed([parent for parent in cls.__mro__ if parent is not object]):
        body = ast.parse(dedent(inspect.getsource(each))).body[0]
        if isinstance(body, ast.ClassDef):
            found.update(_documented(body.body))
    return found


def _documented(statements: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for field, text in pairwise(statements):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            yield field.target.id, " ".join(str(ast.literal_eval(text.value)).split())


class SettingsOptions:
    """The options of one command.

    `names` are flags other than the field's own; `skip` are fields without an option; `arguments` are parameters of the
    command's function that stand on the line without a flag and may be left out.
    """

    def __init__(
        self,
        settings: "type[Settings]",
        *,
        names: Mapping[str, str],
        skip: Collection[str] = (),
        arguments: Collection[str] = (),
    ) -> None:
        self.settings = settings
        self._arguments = arguments
        self.flags: Mapping[str, str] = {
            field.name: names.get(field.name, f"--{field.name.replace('_', '-')}")
            for field in fields(settings)
            if field.name not in skip
        }

    def added_to(self, function: Callable[..., None]) -> Callable[..., None]:
        """Return the command `function` with these options: it gets those that are given as `given`, by variable."""

        def command(**values: Any) -> None:
            options = {name: values.pop(name) for name in self.flags}
            given = {name.upper(): _text(value) for name, value in options.items() if value is not None}
            function(**values, given=given)

        own = [each for each in inspect.signature(function).parameters.values() if each.name != "given"]
        parameters = [*map(self._as_argument, own), *self._parameters()]
        command.__name__, command.__doc__ = function.__name__, function.__doc__
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    def _as_argument(self, parameter: inspect.Parameter) -> inspect.Parameter:
        if parameter.name not in self._arguments:
            return parameter
        import typer

        return parameter.replace(annotation=Annotated[str, typer.Argument(show_default=False)])

    def _parameters(self) -> Iterator[inspect.Parameter]:
        import typer

        texts, hints = described(self.settings), get_type_hints(self.settings)
        for field in fields(self.settings):
            flag = self.flags.get(field.name)
            if flag is None:
                continue
            is_switch = hints[field.name] is bool
            text = f"{texts.get(field.name, '')} {_variable(field)}".strip()
            option = typer.Option(f"{flag}/--no-{flag[2:]}" if is_switch else flag, help=text, show_default=False)
            kind: Any = Annotated[bool | None if is_switch else str | None, option]
            yield inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)

    @contextmanager
    def named(self, given: Collection[str], environ: Mapping[str, str], **others: str) -> Iterator[None]:
        """Name options in errors of the block, unless the environment has set what is wrong.

        `given` are the variables whose option is on the command line; `others` name fields that are no options.
        """
        try:
            yield
        except ConfigError as error:
            flags = {**self.flags, **others}
            fixed = {name for name, text in environ.items() if text} - set(given)
            raise ConfigError([_renamed(each, flags, fixed) for each in error.problems]) from None


def _variable(field: "Field[Any]") -> str:
    default = "" if field.default in ("", MISSING) else f", default {field.default}"
    return f"({field.name.upper()}{default})"


def _renamed(problem: str, flags: Mapping[str, str], fixed: Collection[str]) -> str:
    found = re.match(r"(?P<name>[A-Z][A-Z_]*)(?P<sign>=|: | is not set)", problem)
    flag = flags.get(found["name"].lower()) if found else None
    if found is None or flag is None or found["name"] in fixed:
        return problem
    rest = problem[found.end() :]
    match found["sign"]:
        case "=":
            return f"{flag} {rest}"
        case ": ":
            return f"{flag}: {rest}"
    return f"{flag} (or the variable {found['name']}) is not set{rest}"


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def log_format(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the form of the log for this command: for people where a terminal shows it."""
    return {} if environ.get("LOG_FORMAT") or not sys.stdout.isatty() else {"LOG_FORMAT": "console"}


__all__ = ["SettingsOptions", "described", "log_format"]
