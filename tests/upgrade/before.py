"""Leave a system of an earlier release behind as a busy day would: run by that release's own Python, never by ours.

Arguments: home, file to write. It starts the release on Apache Kafka, places orders until one is in every state, leaves
rows unpublished and a dead letter behind, writes down what it sent and what was answered, and stops.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Producer
from shop.demo import seed
from shop.demo.shopper import Shopper
from shop.demo.stage import in_process
from shop.local import apache
from shop.local.options import Options
from shop.local.system import System
from shop.local.web import Web

from backstay.db import Database
from backstay.http import HttpClient, HttpError

SETTINGS = {
    "FIRST_CHECK": "1",
    "LAST_CHECK": "2",
    "RECONCILE_INTERVAL": "0.25",
    "COMPENSATE_INTERVAL": "0.25",
    "PAYMENT_WAIT_OPEN": "1",
    "STALE_AFTER": "2",
    "STALE_INTERVAL": "0.25",
}
CHAI = {"sku": "NW-001", "quantity": 1}
PLENTY = 100_000
PASSWORD = "correct horse battery staple"
WAIT = 60.0  # seconds, times the scale of the run


class Shop:
    """The running release, one customer of it, and a record of every answer."""

    def __init__(self, system: System, web: Web, client: HttpClient, wait: float) -> None:
        self.system, self.web, self.client, self.wait = system, web, client, wait
        self.email = f"{uuid4().hex}@customers.example"
        self.customer = Shopper(web, self.email, PASSWORD)
        self.answers: list[dict[str, Any]] = []

    async def order(self, name: str, method: str = "pm_card_ok", sku: str = "NW-001") -> str:
        """Place an order, whatever is answered; returns its id, empty without an answer."""
        key = uuid4().hex
        body = json.dumps({"lines": [{"sku": sku, "quantity": 1}], "payment_method": method}).encode()
        sent = {"name": name, "key": key, "body": body.decode(), "status": None, "answer": None, "order": ""}
        self.answers.append(sent)
        host, _, port = self.web.base.removeprefix("http://").partition(":")
        headers = [
            ("content-type", "application/json"),
            ("authorization", f"Bearer {self.customer.token}"),
            ("idempotency-key", key),
        ]
        try:
            answer = await self.client.request(
                host, int(port), "POST", "/api/v1/orders", headers=headers, body=body, timeout=15.0
            )
        except HttpError:
            return ""
        if answer.status in (201, 202, 402):
            sent["status"], sent["answer"] = answer.status, base64.b64encode(answer.body).decode()
            seen = json.loads(answer.body)
            sent["order"] = str(seen.get("id") or seen.get("order_id"))
        return str(sent["order"])

    async def until(self, condition: Callable[[], Awaitable[object]], what: str) -> None:
        """Wait for something to become true."""
        deadline = time.monotonic() + self.wait
        while not await condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"not within {self.wait:g} s: {what}")
            await asyncio.sleep(0.1)

    async def status(self, order: str) -> str:
        """An order's status."""
        return str((await self.customer.get(f"/api/v1/orders/{order}"))["status"])

    def database(self, service: str) -> Database:
        """A service's database."""
        return Database(f"look-{service}", dsn=self.system.running.databases[service], max_size=1)

    async def count(self, service: str, sql: str) -> int:
        """A number from a service's database."""
        async with self.database(service) as database:
            return int(await database.fetchval(sql))


async def settled_orders(shop: Shop) -> None:
    """Orders that ended, every way there is."""
    await shop.order("confirmed")
    await shop.order("declined", "pm_card_declined")
    cancelled = await shop.order("cancelled")
    (await shop.customer.ask("POST", f"/api/v1/orders/{cancelled}/cancel")).expect(200, 202)

    async def refunded() -> bool:
        open_ones = await shop.count("orders", "SELECT count(*) FROM compensations WHERE closed_at IS NULL")
        return open_ones == 0 and await shop.status(cancelled) == "cancelled"

    await shop.until(refunded, "the cancelled order's refund")


async def dead_letter(shop: Shop) -> None:
    """A record that no consumer can read."""
    producer = Producer({"bootstrap.servers": shop.system.running.kafka})
    headers = [("id", str(uuid4()).encode()), ("ce_type", b"order.confirmed")]
    producer.produce("orders", b'{"order_id": 5}', key=b"not-an-order", headers=headers)
    producer.flush(30)

    async def parked() -> bool:
        return await shop.count("inventory", "SELECT count(*) FROM dead_letters") > 0

    await shop.until(parked, "the dead letter at inventory")


async def unfinished_orders(shop: Shop, faults: Path) -> None:
    """Orders in every state before their end; nothing of them reaches Kafka."""
    supervisor = shop.system.supervisor
    await supervisor.stop("kafka")
    await shop.order("confirmed, unpublished")
    await supervisor.stop("payments")
    await shop.order("pending")
    cancelled = await shop.order("pending, cancelled")
    (await shop.customer.ask("POST", f"/api/v1/orders/{cancelled}/cancel")).expect(200, 202)
    (faults / "orders.new").write_text("orders.checkout.after-save=kill")
    (faults / "orders.new").rename(faults / "orders")
    await shop.order("created")
    await supervisor.stop("orders")


async def run(home: Path, out: Path, wait: float) -> None:
    faults = home / "faults"
    faults.mkdir(parents=True)
    apache.fetch()
    options = Options(
        home=home,
        kafka="apache",
        gateway_port=0,
        discovery_port=0,
        faults=faults,
        settings=SETTINGS,
        restart_delay=0.5,
    )
    async with System(options) as system, Web(system.running.gateway) as web, HttpClient() as client:
        stage = in_process(system, web)
        await seed.seed(stage)
        (await stage.admin().ask("PUT", f"/api/v1/stock/{CHAI['sku']}", {"on_hand": PLENTY})).expect(200)
        shop = Shop(system, web, client, wait)
        await shop.customer.register("Ada")
        await shop.customer.login()
        await settled_orders(shop)
        await dead_letter(shop)
        await unfinished_orders(shop, faults)
        states = "SELECT json_object_agg(status, n) FROM (SELECT status, count(*) n FROM orders GROUP BY 1) s"
        async with shop.database("orders") as database:
            found = {
                "email": shop.email,
                "password": PASSWORD,
                "refresh": shop.customer._refresh,
                "answers": shop.answers,
                "states": await database.fetchval(states),
                "unpublished": await database.fetchval("SELECT count(*) FROM outbox"),
                "dead_letters": await shop.count("inventory", "SELECT count(*) FROM dead_letters"),
            }
    out.write_text(json.dumps(found))


asyncio.run(run(Path(sys.argv[1]), Path(sys.argv[2]), WAIT * float(sys.argv[3])))
