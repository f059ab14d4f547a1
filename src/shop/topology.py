"""The whole system on one page: its services, what each owns and needs, and the topics between them.

Everything that starts, stops, seeds or checks the system reads it from here.
"""

from dataclasses import dataclass

ROLES = ("api", "consumer", "relay", "jobs")
PARTITIONS = 6

TOPICS = dict.fromkeys(("orders", "payments", "inventory", "products", "users", "notifications"), PARTITIONS)
"""One topic per aggregate type, with its partitions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One deployable: its name is also its database's, its database role's and its name in the registry."""

    name: str
    owns: str
    database: bool = True
    consumes: tuple[str, ...] = ()
    publishes: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    """Services it calls over HTTP; none of them has to be there for it to start."""
    scopes: tuple[str, ...] = ()
    """What its own service tokens allow, at the services that it calls and nowhere else."""
    mail: bool = False
    port: str | None = None
    """The variable that fixes its port; others take a free one and tell the registry."""

    @property
    def kafka(self) -> bool:
        """True if it talks to the broker."""
        return bool(self.consumes or self.publishes)


DISCOVERY = Service(name="discovery", owns="leases: who runs where", database=False, port="DISCOVERY_PORT")
GATEWAY = Service(name="gateway", owns="the one entry point", database=False, consumes=("users",), port="GATEWAY_PORT")
AUTH = Service(name="auth", owns="users, sessions, keys", publishes=("users",))
CATALOG = Service(name="catalog", owns="products and prices", publishes=("products",))
ORDERS = Service(
    name="orders",
    owns="orders and their timeline",
    consumes=("products", "inventory", "payments", "notifications"),
    publishes=("orders",),
    calls=("payments",),
    scopes=("payments:charge", "payments:read", "payments:void", "payments:refund"),
)
PAYMENTS = Service(name="payments", owns="payments and refunds", publishes=("payments",))
INVENTORY = Service(
    name="inventory", owns="stock and its ledger", consumes=("orders", "products"), publishes=("inventory",)
)
NOTIFICATIONS = Service(
    name="notifications",
    owns="messages to customers",
    consumes=("orders", "payments", "users"),
    publishes=("notifications",),
    mail=True,
)
ANALYTICS = Service(name="analytics", owns="read models", consumes=tuple(TOPICS))
AUDITOR = Service(
    name="auditor",
    owns="what doesn't add up",
    calls=("orders", "payments", "inventory", "notifications"),
    scopes=("audit:read",),
)

SERVICES = (DISCOVERY, GATEWAY, AUTH, CATALOG, ORDERS, PAYMENTS, INVENTORY, NOTIFICATIONS, ANALYTICS, AUDITOR)
"""In the order in which they are started. Everyone can start without everyone else."""

STOP_ORDER = (("gateway",), ("orders",), tuple(s.name for s in SERVICES[2:] if s.name != "orders"), ("discovery",))
"""Callers before those they call; within a group all at once. Broker and database come after the last group."""

DATABASES = tuple(service.name for service in SERVICES if service.database)


def service(name: str) -> Service:
    """Return the service of that name; KeyError names those there are."""
    for candidate in SERVICES:
        if candidate.name == name:
            return candidate
    raise KeyError(f"there is no service {name!r}; there are: {', '.join(s.name for s in SERVICES)}")
