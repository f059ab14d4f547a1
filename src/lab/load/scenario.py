"""The requests of customers: list, order, read the order; each with everything prepared."""

import itertools
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit
from uuid import uuid4

from backstay.http import HttpClient, HttpError, HttpResponse
from lab.client.user import Shopper

TIMEOUT = 15.0  # seconds, more than the gateway's own
RECENT = 200  # orders that reading chooses from
GOOD = frozenset({200, 201, 202})
MIX = {"browse": 45, "detail": 25, "order": 20, "read": 10}
"""How often each happens among the others, as in a shop in which one visit in five buys."""
ORDERS_ONLY = {"order": 1}


@dataclass(slots=True)
class Visitor:
    """A customer with a token of the present."""

    shopper: Shopper
    headers: list[tuple[str, str]]

    @classmethod
    async def of(cls, shopper: Shopper) -> "Visitor":
        """Logged in."""
        await shopper.login()
        return cls(shopper, _headers(shopper))

    async def renew(self) -> None:
        """A new token: they live for five minutes."""
        await self.shopper.renew()
        self.headers = _headers(self.shopper)


def _headers(shopper: Shopper) -> list[tuple[str, str]]:
    return [("accept", "application/json"), ("authorization", f"Bearer {shopper.token}")]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request: what it was and how it was answered; `status` 0 when no answer came."""

    action: str
    status: int

    @property
    def good(self) -> bool:
        """True if the answer was a success."""
        return self.status in GOOD


class Scenario:
    """Requests of a mix, by many visitors, to one or more gateways in turn."""

    def __init__(
        self,
        gateways: Sequence[str],
        visitors: Sequence[Visitor],
        skus: Sequence[str],
        *,
        mix: Mapping[str, int] = MIX,
        connections: int = 64,
    ) -> None:
        self._client = HttpClient(max_per_address=max(connections, 1))
        addresses = [urlsplit(gateway) for gateway in gateways]
        self._addresses = itertools.cycle([(each.hostname or "", each.port or 80) for each in addresses])
        self._visitors = itertools.cycle(visitors)
        self._chance = random.Random(1)  # noqa: S311 - a mix, not a secret
        self._actions, self._weights = list(mix), list(itertools.accumulate(mix.values()))
        self._skus = list(skus)
        self._orders: list[tuple[Visitor, str]] = []
        self._bodies = [self._body() for _ in range(256)]

    async def act(self) -> Outcome:
        """One request of the mix."""
        action = self._chance.choices(self._actions, cum_weights=self._weights)[0]
        visitor = next(self._visitors)
        if action == "read" and not self._orders:
            action = "browse"
        try:
            answer = await self._ask(action, visitor)
            if answer.status == 401:
                await visitor.renew()
                answer = await self._ask(action, visitor)
        except (HttpError, OSError):
            return Outcome(action, 0)
        if action == "order" and answer.status in (201, 202):
            self._remember(visitor, answer)
        return Outcome(action, answer.status)

    def close(self) -> None:
        """Let go of the connections."""
        self._client._pool.close()

    async def _ask(self, action: str, visitor: Visitor) -> HttpResponse:
        host, port = next(self._addresses)
        headers, body, method = visitor.headers, b"", "GET"
        match action:
            case "order":
                method, target, body = "POST", "/api/v1/orders", self._chance.choice(self._bodies)
                headers = [*headers, ("content-type", "application/json"), ("idempotency-key", uuid4().hex)]
            case "detail":
                target = f"/api/v1/products/{self._chance.choice(self._skus)}"
            case "read":
                owner, order = self._chance.choice(self._orders)
                target, headers = f"/api/v1/orders/{order}", owner.headers
            case _:
                target = "/api/v1/products?limit=20"
        return await self._client.request(host, port, method, target, headers=headers, body=body, timeout=TIMEOUT)

    def _body(self) -> bytes:
        """One to three lines, as most orders have."""
        skus = self._chance.sample(self._skus, k=min(self._chance.randint(1, 3), len(self._skus)))
        lines = [{"sku": sku, "quantity": self._chance.randint(1, 3)} for sku in skus]
        return json.dumps({"lines": lines, "payment_method": "pm_card_ok"}).encode()

    def _remember(self, visitor: Visitor, answer: HttpResponse) -> None:
        location = answer.headers.get("location") or ""
        order = (visitor, location.rpartition("/")[2])
        if len(self._orders) < RECENT:
            self._orders.append(order)
        else:
            self._orders[self._chance.randrange(RECENT)] = order
