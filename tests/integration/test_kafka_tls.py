"""Everything that speaks to Kafka does so over TLS with SASL: shown on an Apache Kafka that takes nothing else."""

import asyncio
import base64
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion
from tests.certificates import Certificates, make_certificates

from backstay.db import Database
from backstay.dev import apache
from backstay.dev.program import spawn, stop, wait_until
from backstay.messaging import BrokerUnavailable, Consumer, Event, KafkaAccess, KafkaBroker
from backstay.outbox import Outbox, append
from backstay.service import Service, ServiceSettings
from backstay.testing import eventually

pytestmark = [pytest.mark.kafka, pytest.mark.apache, pytest.mark.xdist_group("kafka-tls"), pytest.mark.timeout(240)]

PASSWORD = "a-password-of-the-broker"
READY, STOPPED = 150.0, 60.0  # seconds
SECURED = """
listeners=SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=SASL_SSL://127.0.0.1:{port}
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.mechanism.inter.broker.protocol=PLAIN
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl_ssl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
username="broker" password="{password}" user_broker="{password}" user_shop="{password}";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_ssl.oauthbearer.sasl.jaas.config=\
org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
ssl.keystore.type=PEM
ssl.keystore.location={keystore}
ssl.truststore.type=PEM
ssl.truststore.location={ca}
"""


@dataclass(frozen=True, slots=True)
class Secured:
    """A broker that takes TLS with SASL only."""

    bootstrap: str
    certificates: Certificates

    def environ(self, **changes: str) -> dict[str, str]:
        return {
            "KAFKA": self.bootstrap,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_SASL_USERNAME": "shop",
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_CA": str(self.certificates.ca),
            **changes,
        }

    def broker(self, **changes: str) -> KafkaBroker:
        return KafkaBroker(self.bootstrap, options=KafkaAccess.read(self.environ(**changes)).client_options())


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if not apache.is_available():
        pytest.skip("needs Java and Maven")
    apache.fetch()
    folder = tmp_path_factory.mktemp("kafka-tls")
    certificates = make_certificates(folder)
    keystore = folder / "keystore.pem"
    keystore.write_bytes(certificates.key.read_bytes() + certificates.certificate.read_bytes())
    node = apache.create(folder / "node", log=folder / "kafka.log")
    properties = node.folder / "server.properties"
    kept = [line for line in properties.read_text().splitlines() if not line.startswith(("listen", "advert", "inter."))]
    more = SECURED.format(
        port=node.port, controller=node.controller, password=PASSWORD, keystore=keystore, ca=certificates.ca
    )
    properties.write_text("\n".join(kept) + more)
    program = node.program()
    process = spawn(program)
    try:
        wait_until(node.is_ready, process, program, timeout=60)
        yield Secured(node.bootstrap, certificates)
    finally:
        stop(process, program)


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
    assert "stopped: 1 published" in out.decode()
    assert PASSWORD not in (out + err).decode()


async def test_make_up_runs_on_it(secured: Secured, tmp_path: Path) -> None:
    """`make up KAFKA=host:port` with these variables: topics, nine services, the demonstration, until Ctrl-C."""
    home = tmp_path / "home"
    ours = {"BACKSTAY_HOME": str(home), "GATEWAY_PORT": "0", "DISCOVERY_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lab", "up"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **secured.environ(), **ours},
    )
    assert process.stdout is not None
    shown: list[str] = []
    try:
        async with asyncio.timeout(READY):
            while not shown or "Ctrl-C stops everything" not in shown[-1]:
                line = await process.stdout.readline()
                assert line, "".join(shown)
                shown.append(line.decode())
        process.send_signal(signal.SIGINT)
        rest, _ = await asyncio.wait_for(process.communicate(), STOPPED)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
            await process.communicate()
    assert process.returncode == 0
    everything = "".join(shown) + rest.decode() + "".join(log.read_text() for log in (home / "logs").glob("*.log"))
    assert "order confirmed" in everything
    assert PASSWORD not in everything
