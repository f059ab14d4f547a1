"""ASGI scopes of servers and of applications around a service, in the form that the router reads."""

from urllib.parse import quote

from backstay.asgi.types import Scope


def local_scope(scope: Scope) -> Scope:
    """Return the scope with paths below `root_path`, under which a service may be mounted, and with a `raw_path`."""
    root: str = scope.get("root_path", "")
    path: str = scope["path"]
    raw: bytes | None = scope.get("raw_path")
    if not root or not path.startswith(root):
        return scope if raw is not None else {**scope, "raw_path": quote(path).encode()}
    below = path[len(root) :] or "/"
    whole = raw if raw is not None else quote(path).encode()
    prefix = quote(root).encode()
    local = whole[len(prefix) :] or b"/" if whole.startswith(prefix) else quote(below).encode()
    return {**scope, "path": below, "raw_path": local}


__all__ = ["local_scope"]
