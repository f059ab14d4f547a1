"""What surrounds an application, as plain ASGI middleware: for FastAPI, Starlette, Litestar, and our own service kit.

Each class takes the application first and options by name, so `app.add_middleware(Deadlines, limit=5.0)` and
`Deadlines(app, limit=5.0)` are the same. From the outermost: `Trace`, `AccessLog`, `LoadShedding`, `Deadlines`,
`ProblemDetails`, `Identity`, `Idempotency`. Requests of other kinds than HTTP pass through.
"""

from typing import TYPE_CHECKING, Any

from backstay.asgi.access import AccessLog
from backstay.asgi.deadlines import Deadlines
from backstay.asgi.identity import Identity
from backstay.asgi.lifespan import lifespan
from backstay.asgi.problem_details import ProblemDetails
from backstay.asgi.shedding import LoadShedding
from backstay.asgi.trace import Trace

if TYPE_CHECKING:
    from backstay.asgi.repeats import Idempotency


def __getattr__(name: str) -> Any:
    """Import `Idempotency` when it is used: it needs the database's driver."""
    if name == "Idempotency":
        from backstay.asgi.repeats import Idempotency

        return Idempotency
    raise AttributeError(name)


__all__ = [
    "AccessLog",
    "Deadlines",
    "Idempotency",
    "Identity",
    "LoadShedding",
    "ProblemDetails",
    "Trace",
    "lifespan",
]
