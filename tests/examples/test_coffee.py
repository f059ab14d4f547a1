"""The one-page example, run as a program of its own between a real database, a real broker, and a real registry."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from backstay.discovery import EurekaClient, RegistryServer
from backstay.http import HttpReply, HttpServer
from backstay.messaging import KafkaBroker
from backstay.service import Service, ServiceSettings, get
from backstay.testing import eventually
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.kafka


@get("/stock/{drink}", public=True)
async def stock(drink: str) -> dict[str, Any]:
    """The bean store: enough for three of everything."""
    return {"drink": drink, "left": 3}


@dataclass
class Surroundings:
    """What the coffee shop finds around itself."""

    registry: EurekaClient
    issuer: TokenIssuer
    environ: dict[str, str]
    start_beans: Callable[[], Any]
    dsn: str

    async def status(self, order_id: str) -> str | None:
        """What the shop's database says of an order."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return await connection.fetchval("SELECT status FROM orders WHERE id = $1", UUID(order_id))
        finally:
            await connection.close()


@pytest.fixture
async def surroundings(database: str, kafka: Any) -> AsyncIterator[Surroundings]:
    await KafkaBroker(kafka.bootstrap, flavor=kafka.flavor).create_topics({"brews": 2})
    issuer = TokenIssuer(audience="customers")
    async with (
        RegistryServer("127.0.0.1", 0) as discovery,
        HttpServer(lambda _: HttpReply(200, issuer.jwks), "127.0.0.1", 0) as auth,
    ):
        url = f"http://127.0.0.1:{discovery.port}/eureka"
        environ = {
            "DATABASE_URL": database,
            "KAFKA": kafka.bootstrap,
            "KAFKA_FLAVOR": kafka.flavor,
            "DISCOVERY_URL": url,
            "FETCH_INTERVAL": "0.2",
            "TOKEN_ISSUER": issuer.issuer,
            "TOKEN_AUDIENCE": issuer.audience,
            "JWKS_URL": f"http://127.0.0.1:{auth.port}/jwks.json",
        }
        settings = ServiceSettings.read({"DISCOVERY_URL": url, "LOG_LEVEL": "error"})
        async with EurekaClient(url, fetch=0.1) as registry:
            beans = Service("beans", routes=[stock], settings=settings)
            yield Surroundings(registry, issuer, environ, beans.running, database)


@asynccontextmanager
async def coffee(around: Surroundings) -> AsyncIterator[tuple[asyncio.subprocess.Process, Api]]:
    """The program, once the registry says it is up."""
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(EXAMPLES), **around.environ}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "coffee.main", env=environ, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        instance = await eventually(lambda: around.registry.choose("coffee"), timeout=30)
        async with Api(instance.port, token=around.issuer.token()) as api:
            yield process, api
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


async def test_an_order_goes_all_its_way(surroundings: Surroundings) -> None:
    """Ordered over HTTP, priced by another service, kept with its event, brewed once through Kafka, left in order."""
    around = surroundings
    async with around.start_beans(), coffee(around) as (process, api):
        await eventually(lambda: around.registry.choose("beans"))
        first = await api.ask("POST", "/orders", {"drink": "mocha"}, key="k1")
        repeat = await api.ask("POST", "/orders", {"drink": "mocha"}, key="k1")
        order = first.json

        assert (first.status, order["drink"], order["status"]) == (201, "mocha", "placed")
        assert (repeat.status, repeat.body) == (201, first.body)
        assert (await api.ask("POST", "/orders", {"drink": "tea"}, key="k1")).slug == "idempotency-key-reused"
        assert (await api.ask("POST", "/orders", {"drink": "2x"}, key="k2")).pointers == ["/drink"]

        async def brewing() -> bool:
            return await around.status(order["id"]) == "brewing"

        await eventually(brewing, timeout=30)
        assert b'backstay_circuit_breaker_state{name="beans"' in (await api.ask("GET", "/metrics")).body

        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
        await eventually(lambda: not around.registry.instances("coffee"))


async def test_without_the_bean_store(surroundings: Surroundings) -> None:
    """While the bean store is away, orders are taken all the same, with what is known."""
    async with coffee(surroundings) as (_, api):
        reply = await api.ask("POST", "/orders", {"drink": "mocha"}, key="k1")

        assert (reply.status, reply.json["beans_left"]) == (201, None)
        assert (await api.ask("POST", "/orders", {"drink": "mocha"}, key="k2", token=None)).status == 401


def test_one_page() -> None:
    """The page stays a page."""
    page = (EXAMPLES / "coffee" / "main.py").read_text(encoding="utf-8")

    assert len(page.splitlines()) <= 80
