"""Placing a history's orders through the gateway: many at once, each under its own key, none lost, none twice."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from backstay.dev.web import Reply, Web
from lab.client.retrying import Retries, slug
from lab.client.user import Shopper
from lab.system.dataset import Customer, History, Order

T = TypeVar("T")
METHOD = "pm_card_ok"
TENTH = 10
AT_ONCE = 32  # repeats in flight, however many orders may be
REGISTRATIONS = 8  # at once; each costs the service a password hash


@dataclass(frozen=True, slots=True)
class Placed:
    """One order and its answer. `id` is None when it was refused: nothing was saved then."""

    order: Order
    status: int
    body: Any

    @property
    def id(self) -> str | None:
        """The shop's id of the order."""
        found = self.body.get("id") or self.body.get("order_id") if isinstance(self.body, dict) else None
        return str(found) if found else None

    @property
    def out_of_stock(self) -> bool:
        """True if it was refused because its stock was known to be short."""
        return self.status == 409 and slug(Reply(self.status, self.body, {}, 0.0)) == "out-of-stock"


class Placing:
    """The customers of a history and their orders."""

    def __init__(self, web: Web, history: History, *, secret: str, concurrency: int) -> None:
        self.retries = Retries()
        self.history = history
        self._concurrency = concurrency
        self._shoppers = {
            customer.id: Shopper(web, customer.email, _password(secret, customer), retries=self.retries)
            for customer in history.customers.values()
        }

    async def register(self, done: Callable[[], None]) -> None:
        """An account for each customer."""

        async def one(customer: Customer) -> None:
            await self._shoppers[customer.id].register(customer.contact or customer.company)
            done()

        await _each(self.history.customers.values(), one, REGISTRATIONS)

    async def ids(self) -> dict[str, str]:
        """Return the shop's customer id by the history's."""
        found: dict[str, str] = {}

        async def one(customer: str) -> None:
            found[customer] = await self._shoppers[customer].id()

        await _each(self._shoppers, one, REGISTRATIONS)
        return found

    async def place(self, done: Callable[[], None], *, every: float = 0.0) -> dict[str, Placed]:
        """Every order, in the order of the file as far as many at once have one; the answers by number.

        `every`: seconds from one order to the next, if they are not to come as fast as they are answered.
        """
        placed: dict[str, Placed] = {}

        async def one(order: Order) -> None:
            placed[order.number] = await self._place(order)
            done()

        await _each(self.history.orders, one, self._concurrency, every)
        return placed

    async def repeat(self, placed: dict[str, Placed], *, step: int = TENTH) -> list[str]:
        """Return a tenth of the orders once more; each line of the answer is one that came out otherwise."""
        differences: list[str] = []

        async def one(order: Order) -> None:
            first, again = placed[order.number], await self._place(order)
            if not same_answer(first, again):
                differences.append(
                    f"order {order.number}, sent again: {again.status} {again.body} instead of "
                    f"{first.status} {first.body}"
                )

        await _each(self.history.orders[::step], one, min(self._concurrency, AT_ONCE))
        return differences

    async def _place(self, order: Order) -> Placed:
        body = {
            "lines": [{"sku": line.sku, "quantity": line.quantity} for line in order.lines],
            "payment_method": METHOD,
        }
        reply = await self._shoppers[order.customer].ask("POST", "/api/v1/orders", body, key=order.key)
        return Placed(order, reply.status, reply.body)


def same_answer(first: Placed, again: Placed) -> bool:
    """A stored answer comes back unchanged; a refusal for lack of stock wasn't stored and is only made again."""
    if first.out_of_stock:
        return again.out_of_stock
    return (first.status, first.body) == (again.status, again.body)


async def _each(items: Iterable[T], work: Callable[[T], Awaitable[None]], at_once: int, every: float = 0.0) -> None:
    """`work` on every item, so many at once, taken in order, none before its time."""
    todo, started = enumerate(items), time.monotonic()

    async def worker() -> None:
        for number, item in todo:
            if every:
                await asyncio.sleep(max(0.0, started + number * every - time.monotonic()))
            await work(item)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(worker())


def _password(secret: str, customer: Customer) -> str:
    """Return the same one each time, so that a repeated replay can log in again."""
    return hmac.new(secret.encode(), customer.id.encode(), hashlib.sha256).hexdigest()[:32]
