"""Two of everything but the registry: the work is shared, and one of each may die without anybody noticing for long."""

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from backstay.db import Database
from backstay.dev import account, apache, registry
from backstay.dev.web import HttpError, Web
from backstay.testing import eventually
from lab.client.user import Shopper
from lab.load.depths import Gauge
from lab.system import seed
from lab.system.context import in_process
from lab.system.instances import read_scale
from lab.system.options import Options
from lab.system.system import System

pytestmark = [pytest.mark.acceptance, pytest.mark.kafka, pytest.mark.xdist_group("scaled"), pytest.mark.timeout(420)]

PATIENCE = 2.0  # seconds in which requests may fail after an instance has died
DEAD = 6.0  # seconds that it stays dead
PAUSE = 0.05  # seconds between two requests
VICTIMS = ("catalog", "orders", "payments", "inventory", "notifications", "analytics", "auth", "discovery")


@dataclass
class Crowd:
    """Customers who look, order and read all the time, and remember every failure with its time."""

    gateway: str
    shopper: Shopper
    failures: list[tuple[float, str]] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    placed: dict[str, tuple[int, object]] = field(default_factory=dict)

    async def live(self) -> None:
        async with Web(self.gateway) as web:
            while True:
                await self._one(web, "GET", "/api/v1/products/NW-001")
                await self._one(web, "GET", "/api/v1/orders?limit=1")
                await self._order(web)

    async def _order(self, web: Web) -> None:
        key = uuid4().hex
        body = {"lines": [{"sku": "NW-002", "quantity": 1}], "payment_method": "pm_card_ok"}
        if (reply := await self._one(web, "POST", "/api/v1/orders", body, key)) is not None:
            self.placed[key] = (reply.status, reply.body)

    async def _one(self, web: Web, method: str, path: str, body=None, key: str | None = None):
        sent = time.monotonic()
        try:
            reply = await web.call(method, path, body, token=self.shopper.token, key=key)
        except HttpError as error:
            self.failures.append((sent, f"{method} {path}: {error}"))
            return None
        finally:
            await asyncio.sleep(PAUSE)
        if reply.status >= 400:
            self.failures.append((sent, f"{method} {path}: {reply.status} {reply.body}"))
            return None
        self.answers[reply.status] += 1
        return reply


@pytest.fixture
async def system() -> AsyncIterator[System]:
    """Two of everything, and stock enough."""
    folder = Path("/tmp") / f"backstay-scaled-{uuid4().hex[:12]}"
    kafka = "embedded"
    if apache.is_available():
        apache.fetch()
        kafka = "apache"
    settings = {"RATE_LIMIT_PER_SECOND": "1000", "RATE_LIMIT_BURST": "1000"}
    options = Options(
        home=folder, kafka=kafka, gateway_port=0, discovery_port=0, scale=read_scale(["all=2"]), settings=settings
    )
    try:
        async with System(options) as system:
            yield system
    finally:
        account.remove_bases(folder)
        shutil.rmtree(folder, ignore_errors=True)


async def test_two_of_everything(system: System) -> None:
    """Every service loses an instance for a while: after two seconds nothing fails, and all sums are right."""
    running = system.running
    assert len(running.gateways) == 2
    async with Web(running.gateway) as web:
        stage = in_process(system, web)
        await seed.seed(stage)
        admin = stage.admin()
        (await admin.ask("PUT", "/api/v1/stock/NW-002", {"on_hand": 100_000})).expect(200)
        shopper = Shopper(web, f"{uuid4().hex}@customers.example", "correct horse battery staple")
        await shopper.register("Ada")
        await shopper.login()
        crowds = [Crowd(gateway, shopper) for gateway in running.gateways]
        tasks = [asyncio.create_task(crowd.live()) for crowd in crowds]
        try:
            await asyncio.sleep(3)
            await _shared(system)
            for service in VICTIMS:
                await shopper.login()  # tokens live for five minutes, and a busy machine takes longer than that
                await _lose(system, service, crowds)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        await _same_answers(web, shopper, crowds)
        await _sums(system, crowds)


async def _shared(system: System) -> None:
    """Both instances of each are found, and both relays of a service have shards."""
    async with Web(system.running.discovery) as discovery:

        async def found() -> bool:
            up = Counter(i.app for i in await registry.instances(discovery) if i.status == registry.UP)
            return set(up.values()) == {2}

        await eventually(found, timeout=60, interval=0.2)
    for name in ("orders", "payments", "inventory"):
        async with Database("look", dsn=system.running.databases[name], max_size=1) as book:

            async def both(book: Database = book) -> bool:
                sql = "SELECT count(DISTINCT owner) FROM outbox_shards WHERE lease_until > now()"
                return await book.fetchval(sql) == 2

            await eventually(both, timeout=20)


async def _lose(system: System, service: str, crowds: list[Crowd]) -> None:
    """One instance dies and stays dead for a while; whoever was about to be served by it may fail, nobody later."""
    name = service if service == "discovery" else f"{service}-2"
    died = time.monotonic()
    await system.supervisor.lose(name)
    await asyncio.sleep(DEAD)
    await system.supervisor.start(name)
    names = tuple(each.service.name for each in system.instances if each.service.name != "discovery")
    async with Web(system.running.discovery) as discovery:

        async def back() -> bool:
            return not await registry.missing(discovery, names)

        await eventually(back, timeout=60, interval=0.2)
    late = [why for crowd in crowds for at, why in crowd.failures if at > died + PATIENCE]
    assert late == [], f"after {name} died"
    for crowd in crowds:
        crowd.failures.clear()


async def _same_answers(web: Web, shopper: Shopper, crowds: list[Crowd]) -> None:
    """Whichever instance is asked: the same key has the same answer."""
    body = {"lines": [{"sku": "NW-002", "quantity": 1}], "payment_method": "pm_card_ok"}
    for crowd in crowds:
        assert len(crowd.placed) > 20
        for key, first in list(crowd.placed.items())[::5]:
            again = await shopper.ask("POST", "/api/v1/orders", body, key=key)
            assert (again.status, again.body) == first


async def _sums(system: System, crowds: list[Crowd]) -> None:
    """Nothing is open, nobody behind; captured, reserved and counted is what is confirmed."""
    async with Gauge(system.running.databases) as gauge:

        async def level() -> bool:
            return (await gauge.look()).caught_up

        await eventually(level, timeout=90, interval=0.3)
    async with (
        Database("look-orders", dsn=system.running.databases["orders"], max_size=1) as orders,
        Database("look-payments", dsn=system.running.databases["payments"], max_size=1) as payments,
        Database("look-stock", dsn=system.running.databases["inventory"], max_size=1) as stock,
    ):

        async def settled() -> bool:
            sql = "SELECT count(*) FROM orders WHERE status IN ('created', 'payment_pending')"
            return not await orders.fetchval(sql)

        await eventually(settled, timeout=60, interval=0.3)
        confirmed = await orders.fetchrow("SELECT count(*), sum(total) FROM orders WHERE status = 'confirmed'")
        kept = await payments.fetchval("SELECT sum(amount) FROM sandbox.ledger")
        held = await stock.fetchval("SELECT sum(reserved) FROM stock")
        assert confirmed["count"] >= sum(len(crowd.placed) for crowd in crowds)
        assert kept == confirmed["sum"]
        assert held == confirmed["count"]
