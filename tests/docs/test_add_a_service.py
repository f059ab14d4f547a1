"""The service that the page adds works as it stands there."""

import importlib
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest

import shop
from backstay.auth import StaticKeys, TokenVerifier
from backstay.ids import uuid7
from backstay.messaging import Envelope, MemoryBroker
from backstay.testing import eventually
from backstay.testing.api import Api
from backstay.testing.issuer import TokenIssuer
from shop.contracts.orders import OrderConfirmed
from shop.kernel import Money
from shop.topology import TOPICS

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-service.md"
FILE = re.compile(r"<!-- needs: (loyalty/\S+) -->\n```\w+\n(.*?)```", re.DOTALL)


@pytest.fixture
def loyalty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's files as a package beside the shop's others."""
    for name, text in FILE.findall(PAGE.read_text()):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "loyalty" / "__init__.py").touch()
    monkeypatch.setattr(shop, "__path__", [*shop.__path__, str(tmp_path)])
    yield importlib.import_module("shop.loyalty.main")
    for module in [module for module in sys.modules if module.startswith("shop.loyalty")]:
        del sys.modules[module]


async def test_the_service_of_the_page_counts_points_once(loyalty: Any, database: str) -> None:
    """A confirmed order earns points over Kafka, twice delivered it earns them once, and HTTP shows them."""
    issuer, broker, customer = TokenIssuer(audience="customers"), MemoryBroker(), uuid4()
    await broker.create_topics(TOPICS)
    service = loyalty.build(loyalty.settings({"DATABASE_URL": database, "TOKEN_ISSUER": issuer.issuer}))
    service.verifier = TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks))
    service.broker = broker
    event = OrderConfirmed(
        order_id=uuid4(), customer_id=customer, lines=(), total=Money.of("55.90"), version=2, at=datetime.now(UTC)
    )
    record = Envelope.record_for(
        topic="orders",
        key=str(event.order_id),
        id=uuid7(),
        type="order.confirmed",
        source="/test",
        data=msgspec.json.encode(event),
    )

    async with service.running() as it, Api(it.port, token=issuer.token(str(customer))) as api, broker.producer() as to:
        await to.publish([record, record])

        async def earned() -> bool:
            return bool((await api.ask("GET", "/api/v1/loyalty")).json == {"points": 55})

        await eventually(earned)
