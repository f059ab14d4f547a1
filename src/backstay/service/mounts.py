"""Applications of any ASGI framework under a path of a service."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from backstay.asgi.lifespan import started
from backstay.asgi.types import App, Receive, Scope, Send
from backstay.service.statistics import RouteCounters


class Mount:
    """An ASGI application under a path: `Service(..., routes=[order, mount("/admin", app)])`."""

    def __init__(self, path: str, app: App) -> None:
        self.path = path
        self.app = app
        self.counters = RouteCounters("", f"{path}/**")
        self.state: dict[str, Any] = {}
        """What the application's lifespan has left for its requests."""

    def __repr__(self) -> str:
        return f"mount({self.path!r}, {self.app!r})"

    def under(self, prefix: str) -> "Mount":
        """Return the same application under a path prefix."""
        return Mount(prefix.rstrip("/") + self.path, self.app) if prefix else self

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: the application sees its own path as `root_path`."""
        root = scope.get("root_path", "") + self.path
        await self.app({**scope, "root_path": root, "state": {**self.state}}, receive, send)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the application's lifespan around the block."""
        async with started(self.app) as self.state:
            yield


def mount(path: str, app: App) -> Mount:
    """Return an ASGI application as a part of a service, for its `routes`; what is under `path` goes to it.

    It is started and stopped with the service (its lifespan), and answers under the service's trace, deadline, bounds
    and access log. Tokens are its own matter. Routes of the service go first.
    """
    if not path.startswith("/") or path.endswith("/") or any(char in path for char in "{}*?"):
        raise TypeError(f"mount {path!r}: a path begins with / and ends without one, and has no variables")
    return Mount(path, app)


def find_mount(mounts: Sequence[Mount], path: str) -> Mount | None:
    """Return the mounted application with the longest path that `path` is under."""
    found = [each for each in mounts if path == each.path or path.startswith(f"{each.path}/")]
    return max(found, key=lambda each: len(each.path)) if found else None


__all__ = ["Mount", "find_mount", "mount"]
