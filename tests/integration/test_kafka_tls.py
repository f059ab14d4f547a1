"""Everything that speaks to Kafka does so over TLS with SASL: shown on an Apache Kafka that takes nothing else."""

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from tests.secured_kafka import PASSWORD, Secured

from backstay.db import Database
from backstay.messaging import BrokerUnavailable, Consumer, Event
from backstay.outbox import Outbox, append
from backstay.service import Service, ServiceSettings
from backstay.testing import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.apache, pytest.mark.xdist_group("kafka-tls"), pytest.mark.timeout(240)]


class Poured(Event, topic="pours-tls", type="pour.done", key="id"):
    """Something was poured."""

    id: str


@pytest.mark.parametrize(
    ("protocol", "ca", "password"),
    [("SASL_SSL", "other_ca", PASSWORD), ("SASL_SSL", "ca", "wrong"), ("PLAINTEXT", "", "")],
)
async def test_nobody_gets_in_otherwise(secured: Secured, protocol: str, ca: str, password: str) -> None:
    """A broker whose certificate isn't trusted is no broker; a wrong password, or none, is no client."""
    given = {"KAFKA_SECURITY_PROTOCOL": protocol, "KAFKA_SASL_PASSWORD": password}
    given["KAFKA_CA"] = str(getattr(secured.certificates, ca)) if ca else ""
    if protocol == "PLAINTEXT":
        given |= {"KAFKA_SASL_MECHANISM": "", "KAFKA_SASL_USERNAME": ""}
    broker = secured.broker(**given)
    try:
        with pytest.raises(BrokerUnavailable) as refused:
            await broker.ping(timeout=3.0)
        assert PASSWORD not in str(refused.value)
    finally:
        await broker.aclose()


@pytest.fixture
async def token_url() -> AsyncIterator[str]:
    """A token endpoint whose tokens the broker believes unsigned; it takes one client and one secret."""
    expected = "Basic " + base64.b64encode(f"shop:{PASSWORD}".encode()).decode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        now = int(time.time())
        parts = ({"alg": "none"}, {"sub": "shop", "iat": now, "exp": now + 60})
        token = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
        known = expected in head
        body = json.dumps({"access_token": f"{token}.", "expires_in": 60} if known else {"error": "invalid_client"})
        status = "200 OK" if known else "401 Unauthorized"
        writer.write(
            f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"


def oauth(url: str, secret: str = PASSWORD) -> dict[str, str]:
    """How a client gets its tokens from an endpoint."""
    options = {
        "sasl.oauthbearer.method": "oidc",
        "sasl.oauthbearer.client.id": "shop",
        "sasl.oauthbearer.client.secret": secret,
        "sasl.oauthbearer.token.endpoint.url": url,
    }
    return {
        "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "KAFKA_SASL_USERNAME": "",
        "KAFKA_SASL_PASSWORD": "",
        "KAFKA_OPTIONS": json.dumps(options),
    }


@pytest.fixture
async def mechanism(
    request: pytest.FixtureRequest, secured: Secured, token_url: str
) -> tuple[dict[str, str], dict[str, str]]:
    """Settings of one SASL mechanism: right ones, and ones with a wrong secret."""
    name = str(request.param)
    if name == "OAUTHBEARER":
        return oauth(token_url), oauth(token_url, "wrong")
    if name.startswith("SCRAM"):
        kind = ScramMechanism[name.replace("-", "_")]
        admin = AdminClient(secured.broker()._settings.admin())
        wanted = UserScramCredentialUpsertion("shop", ScramCredentialInfo(kind, 4096), PASSWORD.encode())
        for future in admin.alter_user_scram_credentials([wanted]).values():
            await asyncio.wrap_future(future)
    return {"KAFKA_SASL_MECHANISM": name}, {"KAFKA_SASL_MECHANISM": name, "KAFKA_SASL_PASSWORD": "wrong"}


MECHANISMS = pytest.mark.parametrize(
    "mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"], indirect=True
)


@MECHANISMS
async def test_a_wrong_secret_is_refused_by_every_mechanism(
    secured: Secured, mechanism: tuple[dict[str, str], dict[str, str]]
) -> None:
    """And the right one gets in."""
    right, wrong = mechanism
    good, bad = secured.broker(**right), secured.broker(**wrong)
    try:
        await good.ping(timeout=15.0)
        with pytest.raises(BrokerUnavailable) as refused:
            await bad.ping(timeout=3.0)
        assert PASSWORD not in str(refused.value)
    finally:
        await good.aclose()
        await bad.aclose()


@MECHANISMS
async def test_a_service_publishes_and_consumes(
    secured: Secured, database: str, mechanism: tuple[dict[str, str], dict[str, str]]
) -> None:
    """Told by its environment alone: producer, group and topics' creation."""
    told = secured.environ(**mechanism[0])
    broker = secured.broker(**mechanism[0])
    await broker.create_topics({"pours-tls": 2})
    await broker.aclose()
    handled: list[str] = []
    db = Database("bar", dsn=database)
    box = Outbox(db)
    consumer = Consumer("bar", db=db)

    @consumer.on(Poured)
    async def note(event: Poured, tx: Any) -> None:
        handled.append(event.id)

    settings = ServiceSettings.read({**told, "LOG_LEVEL": "error"})
    async with Service("bar", settings=settings, owns=[db, box.relay(), consumer]).running():
        async with db.transaction() as tx:
            await box.append(tx, Poured(id="one"))
        await eventually(lambda: handled == ["one"], timeout=60)
    assert PASSWORD not in repr(settings)


async def test_the_relay_command_publishes(secured: Secured, database: str) -> None:
    """`backstay relay` takes the same variables."""
    broker = secured.broker()
    await broker.create_topics({"glasses-tls": 1})
    await broker.aclose()
    db = Database("bar", dsn=database)
    Outbox(db)  # brings the tables
    async with db:
        async with db.transaction() as tx:
            await append(tx, topic="glasses-tls", key="a", type="pour.done", payload={})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "backstay.cli", "relay", database, secured.bootstrap),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **secured.environ()},
        )
        try:

            async def is_empty() -> bool:
                return not await db.fetchval("SELECT EXISTS (SELECT FROM outbox)")

            await eventually(is_empty, timeout=60)
        finally:
            process.send_signal(signal.SIGTERM)
            out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    summary = [json.loads(line) for line in out.decode().splitlines() if "relay.finished" in line]
    assert [(one["published"], one["repeated"]) for one in summary] == [(1, 0)]
    assert PASSWORD not in (out + err).decode()
