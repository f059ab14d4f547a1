"""Parameters of handlers, and their values in a request's path and query."""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from backstay.http.problems import BadRequest, FieldError, NotFound, Unprocessable

MAX_QUERY_FIELDS = 100
"""More query parameters are refused."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a handler."""

    name: str
    type: Any
    default: Any = inspect.Parameter.empty

    @property
    def required(self) -> bool:
        """True if the request must bring it."""
        return self.default is inspect.Parameter.empty


def path_values(parameters: tuple[Parameter, ...], given: Mapping[str, str]) -> dict[str, Any]:
    """Return the parts of the path as the handler's types; what doesn't fit names nothing: `NotFound`."""
    values: dict[str, Any] = {}
    for parameter in parameters:
        text = given[parameter.name]
        try:
            values[parameter.name] = _convert(text, parameter.type)
        except ValueError:
            raise NotFound(f"{parameter.name} {text[:100]!r} is not a {_type_name(parameter.type)}") from None
    return values


def query_values(parameters: tuple[Parameter, ...], query: bytes, *, tolerant: bool = False) -> dict[str, Any]:
    """Return the query parameters as the handler's types; raises `Unprocessable` with every wrong one.

    Unless `tolerant`, a parameter that the handler doesn't have is wrong, and so is one given twice that holds one
    value.
    """
    given = _query(query)
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for parameter in parameters:
        texts = given.pop(parameter.name, None)
        if texts is None:
            if parameter.required:
                errors.append(FieldError(f"/query/{parameter.name}", "is required"))
            continue
        several = _is_list(parameter.type)
        if len(texts) > 1 and not (several or tolerant):
            errors.append(FieldError(f"/query/{parameter.name}", "is given twice; send it once"))
            continue
        try:
            values[parameter.name] = _convert(texts if several else texts[-1], parameter.type)
        except ValueError as error:
            errors.append(FieldError(f"/query/{parameter.name}", str(error)))
    if given and not tolerant:
        errors += _not_parameters(given, parameters)
    if errors:
        raise Unprocessable(errors=errors)
    return values


def _not_parameters(names: Iterable[str], parameters: tuple[Parameter, ...]) -> list[FieldError]:
    there = ", ".join(parameter.name for parameter in parameters)
    reason = f"is not a parameter here; there are {there}" if there else "is not a parameter here; there are none"
    steps = (name[:100].replace("~", "~0").replace("/", "~1") for name in names)
    return [FieldError(f"/query/{step}", reason) for step in steps]


def _query(query: bytes) -> dict[str, list[str]]:
    if not query:
        return {}
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(query.decode("ascii"), True, errors="strict", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise BadRequest(f"the query is malformed or has more than {MAX_QUERY_FIELDS} parameters") from None
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _convert(given: str | list[str], kind: Any) -> Any:
    if "\0" in given or (isinstance(given, list) and any("\0" in text for text in given)):
        raise ValueError("the character U+0000 is not allowed")
    return given if kind is str else msgspec.convert(given, kind, strict=False)


def _is_list(kind: Any) -> bool:
    return getattr(kind, "__origin__", kind) in (list, tuple, set, frozenset)


def _type_name(kind: Any) -> str:
    return getattr(kind, "__name__", None) or str(kind)


__all__ = ["MAX_QUERY_FIELDS", "Parameter", "path_values", "query_values"]
