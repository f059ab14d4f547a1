"""The endpoint of a request: by its path and method.

Paths are matched as the gateway matches them (`backstay.http.paths`), and what it refuses as ambiguous is refused here,
too: a path has one meaning in a whole system. The template with the most literal segments from the left is taken,
whatever its methods; a slash at the end makes no difference.
"""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from backstay.asgi.replies import Reply
from backstay.asgi.types import Receive, Scope
from backstay.errors import ConfigError
from backstay.http.paths import AmbiguousPath, PathPattern, PathTree, compile_pattern, decoded
from backstay.http.problems import BadRequest, MethodNotAllowed, NotFound
from backstay.service.endpoint import Endpoint, Inbound
from backstay.service.routing import Route

Answering = Callable[[Scope, Receive, Inbound], Awaitable[Reply]]

_VARIABLE = re.compile(r"\{(\w+)\}")


@dataclass(slots=True)
class _Template:
    """Path templates that differ in the names of their variables only, with the endpoint of each method."""

    pattern: PathPattern
    by_method: dict[str, tuple[Endpoint, tuple[str, ...]]] = field(default_factory=dict)
    """An endpoint, and its own names of the variables in order."""

    @property
    def methods(self) -> str:
        """The value of `Allow`: HEAD is answered as GET without the body, OPTIONS by the router."""
        given = {*self.by_method, "OPTIONS"}
        return ", ".join(sorted(given | {"HEAD"} if "GET" in given else given))


class Router:
    """Finds the endpoint of a request among these.

    Raises `ConfigError` if two of them have the same method and path, or a path is no template.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._exact: dict[tuple[str, str], Endpoint] = {}
        templates: dict[str, _Template] = {}
        for endpoint in endpoints:
            route = endpoint.route
            shape = _VARIABLE.sub("{}", route.path)
            if shape not in templates:
                templates[shape] = _Template(_pattern(route))
            by_method = templates[shape].by_method
            if route.method in by_method:
                raise ConfigError(f"two routes answer {route.name}")
            by_method[route.method] = endpoint, tuple(_VARIABLE.findall(route.path))
            if shape == route.path:
                self._exact[route.method, route.path] = endpoint
        ordered = [templates[shape] for shape in sorted(templates, key=_specificity)]
        self._tree = PathTree([(each.pattern, each) for each in ordered], key=ordered.index)

    def find(self, scope: Scope) -> Answering:
        """Return the endpoint for a request; the variables of its path are then in `scope["path_params"]`.

        Raises:
            NotFound: no template matches the path.
            MethodNotAllowed: the template has no endpoint for the method; `Allow` lists those it has.
            BadRequest: the path could be read in more than one way.
        """
        method: str = scope["method"]
        if b"%" not in scope["raw_path"]:  # else an encoded slash would count as one
            endpoint = self._exact.get((method, scope["path"]))
            if endpoint is not None:
                return endpoint
        template, values = self._find(scope)
        found = template.by_method.get(method)
        if found is None:
            allowed = template.methods
            if method == "OPTIONS":
                return partial(_options, allowed)
            raise MethodNotAllowed(f"{method} is not possible at {scope['path'][:200]}", headers={"Allow": allowed})
        endpoint, names = found
        scope["path_params"] = dict(zip(names, values, strict=True))
        return endpoint

    def _find(self, scope: Scope) -> tuple[_Template, Sequence[str]]:
        """Return the template of the path, and the values of its variables in order."""
        try:
            path = decoded(scope["raw_path"].decode("ascii"))
        except AmbiguousPath as error:
            raise BadRequest(str(error)) from None
        for template in self._tree.candidates(path):
            match = template.pattern.match
            assert match is not None, "a template has no wildcard"
            values = match(path)
            if values is not None:
                return template, tuple(values.values())
        raise NotFound(f"there is nothing at {scope['path'][:200]}")


async def _options(allowed: str, *_: object) -> Reply:
    return Reply(204, [(b"allow", allowed.encode())], b"")


def _pattern(route: Route) -> PathPattern:
    try:
        return compile_pattern(route.path)
    except ValueError as error:
        raise ConfigError(f"{route.name}: {error}") from None


def _specificity(shape: str) -> tuple[bool, ...]:
    return tuple("{}" in segment for segment in shape.split("/"))


__all__ = ["Router"]
