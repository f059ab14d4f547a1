"""What a handler takes of a request, decided by the types of its parameters when it is decorated."""

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from backstay.auth import Principal
from backstay.service.conditions import Conditions
from backstay.service.idempotency import IdempotencyKey
from backstay.service.parameters import Parameter
from backstay.service.requests import Request

T = TypeVar("T")


class _BodyMark:
    """Marks a parameter as the body."""

    def __repr__(self) -> str:
        return "BODY"


BODY = _BodyMark()
Body = Annotated[T, BODY]
"""`Body[T]`: the JSON body as a T, where the type alone would make it a query parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Injected:
    """The parameters of a handler by what they are given; None where it doesn't take such a thing."""

    caller: Parameter | None = None
    key: Parameter | None = None
    conditions: Parameter | None = None
    request: Parameter | None = None
    body: Parameter | None = None
    path: tuple[Parameter, ...] = ()
    query: tuple[Parameter, ...] = ()

    @property
    def caller_is_optional(self) -> bool:
        """Whether the handler can do without a caller."""
        return self.caller is not None and NoneType in get_args(self.caller.type)


_BY_TYPE: Mapping[Any, str] = {
    Principal: "caller",
    IdempotencyKey: "key",
    Conditions: "conditions",
    Request: "request",
}


def inject(where: str, handler: Callable[..., Any], path: Collection[str]) -> Injected:
    """Return what `handler` takes; `path` has the names in its path. Raises `TypeError` for what isn't clear."""
    signature = inspect.signature(handler)
    hints = get_type_hints(handler, include_extras=True)
    if missing := [name for name in signature.parameters if name not in hints]:
        raise TypeError(f"{where}: annotate {', '.join(missing)}")
    if unknown := [name for name in path if name not in signature.parameters]:
        raise TypeError(f"{where}: takes no parameter {', '.join(unknown)} of its path")
    found: dict[str, list[Parameter]] = {}
    for name, parameter in signature.parameters.items():
        kind = "path" if name in path else _kind(where, name, hints[name])
        found.setdefault(kind, []).append(Parameter(name, hints[name], parameter.default))
    for kind, parameters in found.items():
        if len(parameters) > 1 and kind not in ("path", "query"):
            names = " and ".join(parameter.name for parameter in parameters)
            raise TypeError(f"{where}: {names} would both be the {kind}; a handler takes one")
    several = {kind: tuple(found.pop(kind, ())) for kind in ("path", "query")}
    return Injected(path=several["path"], query=several["query"], **{kind: one[0] for kind, one in found.items()})


def _kind(where: str, name: str, hint: Any) -> str:
    """Return which field of `Injected` a parameter belongs to."""
    if get_origin(hint) is Annotated and BODY in hint.__metadata__:
        return "body"
    members = [part for part in _members(hint) if part is not NoneType]
    special = {_BY_TYPE[part] for part in members if _is_hashable(part) and part in _BY_TYPE}
    if special:
        if len(members) > 1:
            raise TypeError(f"{where}: {name} is one of several things; give it one type (or None)")
        return special.pop()
    if hint is bytes or _is_model(hint):
        return "body"
    if name == "body" and (hint is Any or _is_collection(hint)):
        raise TypeError(f"{where}: body could be the body or a query parameter; write Body[...] or another name")
    return "query"


def _members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union; the type itself if it is none."""
    if get_origin(hint) is Annotated:
        return _members(get_args(hint)[0])
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _is_model(hint: Any) -> bool:
    """Return whether a type can only be that of a JSON body: it has objects in it."""
    origin = get_origin(hint) or hint
    if origin is dict or origin is Mapping or is_dataclass(origin) or is_typeddict(origin):
        return True
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        return True
    return any(_is_model(part) for part in get_args(hint) if isinstance(part, type) or get_origin(part) is not None)


def _is_collection(hint: Any) -> bool:
    return any((get_origin(part) or part) in (list, tuple, set, frozenset) for part in _members(hint))


def _is_hashable(part: Any) -> bool:
    try:
        hash(part)
    except TypeError:
        return False
    return True


__all__ = ["BODY", "Body", "Injected", "inject"]
