"""The other services' internal reads: the changes of each, from a cursor on."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import urlencode

from backstay.service import Client, client
from backstay.service import Feed as Page
from shop.auditor.model import Fact, Feed
from shop.contracts.audit import MailFact, OrderFact, PaymentFact, ProviderFact, ReservationFact

SCOPE = "audit:read"
PATH = "/internal/audit"

READS: Mapping[Feed, tuple[str, str, Any]] = {
    Feed.ORDERS: ("orders", PATH, Page[OrderFact]),
    Feed.PAYMENTS: ("payments", PATH, Page[PaymentFact]),
    Feed.PROVIDER: ("payments", f"{PATH}/provider", Page[ProviderFact]),
    Feed.INVENTORY: ("inventory", PATH, Page[ReservationFact]),
    Feed.NOTIFICATIONS: ("notifications", PATH, Page[MailFact]),
}
"""Which service has each feed, where, and what it answers."""


class ChangesPort(Protocol):
    """The other services, as the auditor reads them."""

    async def read(self, feed: Feed, since: str | None, *, limit: int) -> Page[Fact]:
        """Return the facts that changed after a cursor. Raises ConnectionError, TimeoutError or a ServiceCallError."""


class Changes:
    """The other services over HTTP, each with a token of its own."""

    def __init__(self, *, timeout: float) -> None:
        self._clients = {
            name: client(f"lb://{name}", scope=SCOPE, timeout=timeout)
            for name in dict.fromkeys(name for name, _, _ in READS.values())
        }

    @property
    def clients(self) -> Sequence[Client]:
        """The connections, to be owned by the service."""
        return list(self._clients.values())

    async def read(self, feed: Feed, since: str | None, *, limit: int) -> Page[Fact]:
        """Return the facts that changed after a cursor. Raises ConnectionError, TimeoutError or a ServiceCallError."""
        name, path, kind = READS[feed]
        query = {"limit": str(limit)} | ({} if since is None else {"since": since})
        page: Page[Fact] = await self._clients[name].get(f"{path}?{urlencode(query)}", kind)
        return page
