"""One whole system of real processes for all acceptance tests, and everything a test may do to it."""

import asyncio
import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from tests.documented import DocumentedWeb

from backstay.db import Database
from backstay.dev import account, apache, mail_catcher, registry
from backstay.dev.home import Home, Running
from backstay.dev.ports import free_port
from backstay.dev.web import Reply, Web
from backstay.testing import eventually
from lab.client.user import Shopper
from lab.system import control
from lab.system.environment import ADMIN_EMAIL

START = Path(__file__).parent / "acceptance" / "start.py"
SETTLE = 60.0  # seconds
PASSWORD = "correct horse battery staple"
CHAI = {"sku": "NW-001", "quantity": 1}


class Proxy:
    """A door between the services and the broker that can be shut: connections are cut and no new ones come through."""

    def __init__(self, port: int, target: int) -> None:
        self._port, self._target = port, target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.open()

    def open(self) -> None:
        self._run(self._open())

    def shut(self) -> None:
        self._run(self._shut())

    def close(self) -> None:
        self.shut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        future: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(10)

    async def _open(self) -> None:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self._port)

    async def _shut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        tasks = asyncio.all_tasks(self._loop) - {asyncio.current_task(self._loop)}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, onward = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, onward}
        try:
            await asyncio.gather(_pump(reader, onward), _pump(upstream, writer))
        except asyncio.CancelledError:
            pass  # the door was shut: asyncio's server wants its callbacks to end well
        finally:
            self._writers -= {writer, onward}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except (OSError, asyncio.CancelledError):
        pass
    finally:
        writer.transport.abort()


@dataclass(frozen=True, slots=True)
class World:
    """The running system, and the ways of fate."""

    running: Running
    home: Home
    proxy: Proxy
    faults: Path

    async def tell(self, verb: str, service: str) -> None:
        """Stop, start or kill a process."""
        await control.tell(self.running, verb, service)

    def arm(self, service: str, *entries: str) -> None:
        """Make fault points of a service go off."""
        self.disarm(service)
        half = self.faults / f"{service}.new"
        half.write_text("\n".join(entries))
        half.rename(self.faults / service)

    def disarm(self, *services: str) -> None:
        """Take the faults of services back, of all if none is named."""
        for name in services or [file.name for file in self.faults.iterdir()]:
            (self.faults / name).unlink(missing_ok=True)
            (self.faults / f"{name}.spent").unlink(missing_ok=True)

    def fired(self, service: str) -> str:
        """The faults of a service that have gone off."""
        spent = self.faults / f"{service}.spent"
        return spent.read_text() if spent.exists() else ""

    async def restarts(self, service: str) -> int:
        """How often a process had to be started again."""
        children = await control.tell(self.running, "status")
        return int(next(child["restarts"] for child in children if child["name"] == service))

    async def up(self, *services: str) -> None:
        """Wait until services are in the registry and say themselves that they are ready."""
        async with Web(self.running.discovery) as discovery:

            async def ready() -> bool:
                found = [i for i in await registry.instances(discovery) if i.status == registry.UP]
                there = {i.app for i in found if i.app in services and await registry.is_ready(i)}
                return there == set(services)

            await eventually(ready, timeout=SETTLE, interval=0.1)

    def mails(self, to: str) -> list[mail_catcher.Mail]:
        """What was sent to an address."""
        return mail_catcher.kept(Path(self.running.mail), to=to)

    @contextlib.asynccontextmanager
    async def instance(self, service: str) -> AsyncIterator[Web]:
        """One instance of a service, past the gateway."""
        async with Web(self.running.discovery) as discovery:

            async def alive() -> str | None:  # one that was killed stays in the registry until its lease is over
                found = [i for i in await registry.instances(discovery) if i.app == service]
                return next(iter([i.address for i in found if await registry.is_alive(i)]), None)

            address = await eventually(alive, timeout=SETTLE, interval=0.1)
        async with Web(str(address)) as web:
            yield web

    @contextlib.asynccontextmanager
    async def database(self, service: str) -> AsyncIterator[Database]:
        """A service's own database."""
        async with Database(f"look-{service}", dsn=self.running.databases[service], max_size=1) as database:
            yield database


@dataclass(slots=True)
class Customer:
    """A customer of the tests', who remembers all orders that were answered."""

    shopper: Shopper
    web: Web
    orders: list[str] = field(default_factory=list)

    async def order(self, method: str = "pm_card_ok", *lines: dict[str, Any], key: str | None = None) -> Reply:
        """A checkout, repeated with its key until there is an answer."""
        body = {"lines": list(lines) or [CHAI], "payment_method": method}
        reply = await self.shopper.ask("POST", "/api/v1/orders", body, key=key or uuid4().hex)
        if isinstance(reply.body, dict) and (found := reply.body.get("id") or reply.body.get("order_id")):
            self.orders.append(found)
        return reply

    async def buy(self, *lines: dict[str, Any]) -> str:
        """A checkout, confirmed now or (when payments is slow to answer) soon; the order's id."""
        order = str((await self.order("pm_card_ok", *lines)).expect(201, 202).body["id"])
        assert await self.settled(order) == "confirmed"
        return order

    async def once(self, body: Any, *, key: str | None = None, **more: Any) -> Reply:
        """A checkout as it is, whatever comes."""
        return await self.web.call("POST", "/api/v1/orders", body, token=self.shopper.token, key=key, **more)

    async def status(self, order: str) -> str:
        """An order's present status."""
        return str((await self.shopper.get(f"/api/v1/orders/{order}"))["status"])

    async def settled(self, order: str, *, timeout: float = SETTLE) -> str:
        """An order's status once it waits for nothing."""

        async def final() -> str | None:
            status = await self.status(order)
            return status if status not in ("created", "payment_pending") else None

        return str(await eventually(final, timeout=timeout, interval=0.1))

    async def cancel(self, order: str) -> Reply:
        """Cancel an order."""
        return await self.shopper.ask("POST", f"/api/v1/orders/{order}/cancel")


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """A whole system of this test run, seeded; brought down with every process when it ends."""
    flavor = "embedded"
    if apache.is_available():
        apache.fetch()
        flavor = "apache"
    with running_system(Path("/tmp") / f"backstay-acceptance-{uuid4().hex[:12]}", flavor) as world:
        yield world


@contextlib.contextmanager
def running_system(home: Path, flavor: str, *, seeded: bool = True) -> Iterator[World]:
    """Run a whole system on a home, in processes of its own; the home goes with it."""
    faults = home / "faults"
    faults.mkdir(parents=True, exist_ok=True)
    inside, outside = free_port(), free_port()
    proxy = Proxy(outside, inside)
    argv = [sys.executable, str(START), str(home), flavor, str(inside), str(outside), "seeded" if seeded else "as-left"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            _wait_until_up(process)
            at = Home(home)
            running = at.running()
            assert running is not None
            yield World(running, at, proxy, faults)
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=60)
            process.kill()
            proxy.close()
    account.remove_bases(home)
    shutil.rmtree(home, ignore_errors=True)


def _wait_until_up(process: subprocess.Popen[str]) -> None:
    output = []
    for line in process.stdout or ():
        output.append(line)
        if line == "up\n":
            return
    raise AssertionError("the system didn't come up:\n" + "".join(output))


@pytest.fixture
async def web(world: World) -> AsyncIterator[Web]:
    """The gateway."""
    async with DocumentedWeb(world.running.gateway) as web:
        yield web


@pytest.fixture
async def new_customer(world: World, web: Web) -> Callable[[], Coroutine[Any, Any, Customer]]:
    """Makes customers, registered and logged in."""

    async def make() -> Customer:
        shopper = Shopper(web, f"{uuid4().hex}@customers.example", PASSWORD)
        await shopper.register("Ada")
        await shopper.login()
        return Customer(shopper, web)

    return make


@pytest.fixture
async def customer(new_customer: Callable[[], Coroutine[Any, Any, Customer]]) -> Customer:
    """A new customer, logged in."""
    return await new_customer()


@pytest.fixture
async def admin(world: World, web: Web) -> Shopper:
    """The first admin, logged in."""
    admin = Shopper(web, ADMIN_EMAIL, world.home.secret("admin"))
    await admin.login()
    return admin


@pytest.fixture
def sell(admin: Shopper) -> Callable[..., Coroutine[Any, Any, None]]:
    """Puts a new product on sale."""

    async def sell(sku: str, *, price: str, units: int) -> None:
        body = {"sku": sku, "name": sku.title(), "category": "Tests", "price": {"amount": price, "currency": "USD"}}
        (await admin.ask("POST", "/api/v1/products", body)).expect(201)
        (await admin.ask("PUT", f"/api/v1/stock/{sku}", {"on_hand": units})).expect(200)

    return sell


@pytest.fixture
async def healed(world: World, customer: Customer) -> AsyncIterator[None]:
    """A test begins with a healthy system, every breaker closed; whatever it did to the system is undone after it."""

    async def healthy() -> bool:
        return (await customer.order()).status == 201

    await eventually(healthy, timeout=SETTLE, interval=0.2)
    customer.orders.clear()
    yield
    world.disarm()
    services = ("payments", "orders", "inventory", "notifications", "catalog", "auth", "gateway", "analytics")
    for service in services:
        await world.tell("start", service)
    await world.up(*services)


ORDERS_BOOK = "SELECT id, status, total FROM orders WHERE id = ANY($1::uuid[])"
OPEN = """
SELECT (SELECT count(*) FROM compensations WHERE closed_at IS NULL AND order_id = ANY($1::uuid[]))
     + (SELECT count(*) FROM orders WHERE status IN ('created', 'payment_pending') AND id = ANY($1::uuid[]))
"""
PROVIDER_BOOK = """
SELECT p.order_id, coalesce(sum(l.amount), 0) AS kept, count(l.key) FILTER (WHERE l.entry = 'captured') AS captures
FROM payments p LEFT JOIN sandbox.ledger l ON l.key IN (p.id::text, p.id::text || ':refund')
WHERE p.order_id = ANY($1::uuid[]) GROUP BY p.order_id
"""
HELD = """
SELECT order_id, sum(reserved) AS units FROM ledger WHERE order_id = ANY($1::uuid[])
GROUP BY order_id HAVING sum(reserved) <> 0
"""
LEDGER = """
SELECT count(*) FROM stock s
WHERE on_hand < reserved OR reserved < 0
   OR (on_hand, reserved) <> (
       SELECT coalesce(sum(on_hand), 0), coalesce(sum(reserved), 0) FROM ledger l WHERE l.sku = s.sku)
"""


@pytest.fixture
def audit(world: World) -> Callable[[list[str]], Coroutine[Any, Any, dict[str, str]]]:
    """Waits until orders have settled, then compares every book about them; returns their states."""

    async def look(orders: list[str]) -> dict[str, str]:
        ids = [UUID(order) for order in dict.fromkeys(orders)]
        async with (
            world.database("orders") as book,
            world.database("payments") as payments,
            world.database("inventory") as stock,
        ):
            return await eventually(lambda: agreed(ids, book, payments, stock), timeout=SETTLE, interval=0.1)

    return look


async def agreed(ids: list[UUID], book: Database, payments: Database, stock: Database) -> dict[str, str]:
    """The orders' states, if nothing about them is open and the others' books say the same."""
    rows = await book.fetch(ORDERS_BOOK, ids)
    states = {str(row["id"]): str(row["status"]) for row in rows}
    assert len(states) == len(ids), "an order that was answered is missing"
    assert await book.fetchval(OPEN, ids) == 0, f"not settled: {states}"
    paid = {str(row["order_id"]): row for row in await payments.fetch(PROVIDER_BOOK, ids)}
    assert all(row["captures"] <= 1 for row in paid.values()), "an order was charged twice"
    kept = {order: paid[order]["kept"] if order in paid else Decimal(0) for order in states}
    assert kept == {str(row["id"]): row["total"] if row["status"] == "confirmed" else Decimal(0) for row in rows}
    held = {str(row["order_id"]) for row in await stock.fetch(HELD, ids)}
    assert held == {order for order, state in states.items() if state == "confirmed"}, "the stock doesn't agree"
    assert await stock.fetchval(LEDGER) == 0, "a stock's ledger doesn't add up"
    return states


@pytest.fixture
def clock() -> Callable[[], float]:
    """Seconds, for measuring an answer."""
    return time.monotonic
