"""Events in: each adds its facts to the generation that its consumer group fills."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from backstay.clock import SYSTEM, Clock
from backstay.db import Database, Transaction
from backstay.messaging import Broker, Consumer, Event, Locks
from backstay.metrics import Counts
from backstay.telemetry.logs import get_logger
from shop.analytics.model import Facts, Line, State, group
from shop.analytics.service import Analytics
from shop.contracts.inventory import InventoryRejected, InventoryReserved
from shop.contracts.orders import OrderCancelled, OrderConfirmed, OrderCreated, OrderEvent, OrderPaymentPending
from shop.contracts.payments import PaymentCaptured, PaymentEvent, PaymentRefunded
from shop.kernel.pace import GATHER

CATCH_UP = ("orders", "payments", "inventory")  # topics that a new generation must have read before it answers
FOLLOW = 1.0  # seconds between two looks at which generations are live

log = get_logger()


def register(consumer: Consumer, analytics: Analytics, *, generation: int) -> None:
    """Register the handler of each event: the facts it carries."""

    async def lock(tx: Transaction, order_ids: list[str]) -> None:
        await analytics.lock(tx, generation, order_ids)

    locks = Locks(keys=_order_ids, take=lock)

    @consumer.on_batch(*FACTS, locks=locks)
    async def learn(events: Sequence[Any], tx: Transaction) -> None:
        await analytics.learn(tx, generation, [FACTS[type(event)](event) for event in events])


@dataclass(frozen=True, slots=True)
class ReadersStatistics:
    """Counts of the consumers of this process, by group: see `ConsumerStatistics`."""

    handled: Counts
    dead_letters: Counts
    lag: dict[str, int]
    healthy: dict[str, bool]


class Readers:
    """A consumer for each live generation, in this process. Follows generations as they come and go.

    Invariant: a generation has a consumer here while it is live, and is swapped in by whoever sees first that its
    group has caught up; any number of instances may follow the same generations.
    """

    role = "consumer"

    def __init__(self, db: Database, analytics: Analytics, *, interval: float = FOLLOW, clock: Clock = SYSTEM) -> None:
        self._db = db
        self._analytics = analytics
        self._interval = interval
        self._clock = clock
        self._broker: Broker | None = None
        self._running: dict[int, tuple[Consumer, AsyncExitStack]] = {}
        self._follower: asyncio.Task[None] | None = None
        self._consumer(0)  # its tables must be there before the first generation is known

    @property
    def lacks_broker(self) -> bool:
        """True if no broker has been given yet."""
        return self._broker is None

    def use_broker(self, broker: Broker) -> None:
        """The broker of all consumers."""
        self._broker = broker

    async def __aenter__(self) -> Self:
        await self.follow()
        self._follower = asyncio.create_task(self._follow(), name="analytics readers")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        for generation in list(self._running):
            await self._stop(generation)

    def statistics(self) -> ReadersStatistics:
        """Return the counts of the consumers of this process."""
        of = {consumer.group: consumer.statistics() for consumer, _ in self._running.values()}
        return ReadersStatistics(
            handled={name: found.handled for name, found in of.items()},
            dead_letters={name: found.dead_letters for name, found in of.items()},
            lag={name: found.lag for name, found in of.items() if found.lag is not None},
            healthy={name: found.healthy for name, found in of.items()},
        )

    async def follow(self) -> None:
        """Start readers of new generations, stop those of old ones, swap in what has caught up."""
        live = {found.generation: found for found in await self._analytics.live()}
        for generation in self._running.keys() - live.keys():
            await self._stop(generation)
        for generation in live.keys() - self._running.keys():
            await self._start(generation)
        for generation, found in live.items():
            consumer, _ = self._running[generation]
            if found.state is State.BUILDING and await consumer.caught_up() and await self._analytics.swap(generation):
                log.info("analytics.swapped", generation=generation)

    async def _follow(self) -> None:
        while True:
            await self._clock.sleep(self._interval)
            try:
                await self.follow()
            except Exception as error:  # noqa: BLE001 - its readers go on; the next look may fare better
                log.warning("analytics.follow-failed", error=f"{type(error).__name__}: {error}")

    async def _start(self, generation: int) -> None:
        consumer, stack = self._consumer(generation), AsyncExitStack()
        register(consumer, self._analytics, generation=generation)
        if self._broker is not None:
            consumer.use_broker(self._broker)
        await stack.enter_async_context(consumer)
        self._running[generation] = consumer, stack

    async def _stop(self, generation: int) -> None:
        _, stack = self._running.pop(generation)
        await stack.aclose()

    def _consumer(self, generation: int) -> Consumer:
        return Consumer(group(generation), db=self._db, catch_up=CATCH_UP, gather=GATHER)


def _reserved(event: InventoryReserved) -> Facts:
    return Facts(order_id=event.order_id, customer_id=event.customer_id, reserved_at=event.at)


def _rejected(event: InventoryRejected) -> Facts:
    return Facts(order_id=event.order_id, customer_id=event.customer_id, rejected_at=event.at)


def _order_ids(event: Any) -> list[str]:
    return [str(event.order_id)]


def _of_order(event: OrderEvent, **times: Any) -> Facts:
    lines = tuple(Line(line.sku, line.name, line.quantity, line.total) for line in event.lines)
    return Facts(order_id=event.order_id, customer_id=event.customer_id, total=event.total, lines=lines, **times)


def _of_payment(event: PaymentEvent, **facts: Any) -> Facts:
    return Facts(order_id=event.order_id, customer_id=event.customer_id, **facts)


FACTS: Mapping[type[Event], Callable[[Any], Facts]] = {
    OrderCreated: lambda event: _of_order(event, created_at=event.at),
    OrderPaymentPending: lambda event: _of_order(event, pending_at=event.at),
    OrderConfirmed: lambda event: _of_order(event, confirmed_at=event.at),
    OrderCancelled: lambda event: _of_order(event, cancelled_at=event.at),
    PaymentCaptured: lambda event: _of_payment(event, captured=event.amount),
    PaymentRefunded: lambda event: _of_payment(event, refunded=event.amount, refunded_at=event.at),
    InventoryReserved: _reserved,
    InventoryRejected: _rejected,
}
"""What each type of event tells."""
