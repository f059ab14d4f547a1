"""PostgreSQL and Kafka, processes, a TCP fault proxy and a mail catcher for development and tests (extra `dev`).

The pytest plugin (`backstay.dev.pytest_plugin`) offers PostgreSQL and Kafka as fixtures. Parts are imported when they
are first used, for the plugin is loaded by every run of pytest.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from backstay.dev.mail_catcher import Mailbox
    from backstay.dev.servers import Kafka, Postgres
    from backstay.dev.supervisor import Supervisor
    from backstay.dev.tcp_proxy import TcpProxy

_MODULES = {
    "Kafka": "servers",
    "Mailbox": "mail_catcher",
    "Postgres": "servers",
    "Supervisor": "supervisor",
    "TcpProxy": "tcp_proxy",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


__all__ = ["Kafka", "Mailbox", "Postgres", "Supervisor", "TcpProxy"]
