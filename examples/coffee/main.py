"""A whole service on one page: it takes orders over HTTP, asks another service, and brews what an event tells it."""

from uuid import UUID

from backstay import messaging, outbox, service
from backstay import resilience as r
from backstay.db import Database, Transaction
from backstay.service import Answer, IdempotencyKey, Principal, Service, post
from coffee import store
from coffee.model import NewOrder, Order, Stock


class BrewRequested(messaging.Event, topic="brews", type="brew.requested", key="order_id"):
    """Somebody shall brew this."""

    order_id: UUID
    drink: str


db = Database("coffee", migrations="migrations")
box = outbox.Outbox(db)
beans = service.client(
    "lb://beans",
    r.pipeline(
        r.Retry(3, wait=r.exponential(0.1, cap=1.0, jitter=0.5), budget=r.Budget(0.1)),
        r.CircuitBreaker("beans", failure_rate=50, window=r.last(100)),
        r.Bulkhead(25),
        r.TimeLimiter(1.0),
    ),
)


async def assume_some(error: Exception, drink: str) -> Stock:
    """Better to promise a coffee than to lose a guest."""
    return Stock.unknown(drink)


@r.fallback(
    {
        r.Rejected: assume_some,
        TimeoutError: assume_some,
        ConnectionError: assume_some,
        service.UpstreamError: assume_some,
    }
)
async def beans_for(drink: str) -> Stock:
    """What the bean store has for it."""
    return await beans.get(f"/stock/{drink}", Stock)


@post("/orders", scope="orders:write", status=201)
async def order(body: NewOrder, who: Principal, key: IdempotencyKey) -> Answer[Order]:
    """Order a coffee."""
    stock = await beans_for(body.drink)  # no remote call inside a transaction
    async with db.transaction() as tx:
        if (first := await key.claim(tx, body)) is not None:  # a repeat: the first answer again
            return first
        placed = await store.save(tx, body, stock, who.id)
        await box.append(tx, BrewRequested(order_id=placed.id, drink=placed.drink), version=placed.version)
        return await key.answer(tx, placed, status=201)  # kept in the same transaction


brews = messaging.Consumer("coffee", db=db)  # inbox included: a handler's effect happens once


@brews.on(BrewRequested)
async def brew(event: BrewRequested, tx: Transaction) -> None:
    """Put the kettle on."""
    await store.mark_brewing(tx, event.order_id)


app = Service("coffee", routes=[order], owns=[db, beans, box.relay(), brews])  # HTTP is entered last, left first

if __name__ == "__main__":
    app.run()  # registers itself, serves, drains on SIGTERM
