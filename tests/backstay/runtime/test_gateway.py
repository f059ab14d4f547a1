"""The gateway's process: each limit of the data plane is a setting, and events end sessions."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from backstay.discovery import StaticRegistry
from backstay.errors import ConfigError
from backstay.gateway import GatewayOptions, RouteTable, read_definition
from backstay.ids import uuid7
from backstay.messaging import Envelope, MemoryBroker
from backstay.runtime.gateway import GatewayProcess, GatewaySettings, RunningGateway
from backstay.testing import eventually

ROUTES = """
spring.cloud.gateway.routes:
  - {id: hello, uri: "http://127.0.0.1:1", predicates: [Path=/hello], metadata: {public: true}}
  - {id: secret, uri: "http://127.0.0.1:1", predicates: [Path=/secret]}
"""
TRUSTED = {"TOKEN_ISSUER": "https://who.example", "TOKEN_AUDIENCE": "api", "JWKS_URL": "http://127.0.0.1:1/keys"}


def table(*, public: bool = False) -> RouteTable:
    """The routes above."""
    found = RouteTable(read_definition(ROUTES, {}))
    for route in found.routes:
        route.public = route.public or public
    return found


@asynccontextmanager
async def running(broker: MemoryBroker | None = None, **environ: str) -> AsyncIterator[RunningGateway]:
    """A gateway on a free port."""
    settings = GatewaySettings.read({"GATEWAY_PORT": "0", "LOG_LEVEL": "error", **TRUSTED, **environ})
    async with GatewayProcess(settings, table(), registry=StaticRegistry({}), broker=broker).running() as it:
        yield it


def test_every_limit_is_a_setting() -> None:
    """A field of the options that no setting fills could only be changed in the code."""
    settings = GatewaySettings.read({"MAX_CLIENTS": "7", "TOTAL_TIMEOUT": "12.5", "MAX_BODY": "99"})
    names = {field.name for field in fields(GatewayOptions)} - {"limits", "identity_headers"}

    assert names <= {field.name for field in fields(GatewaySettings)}
    options = settings.options()
    assert (options.max_clients, options.total_timeout, options.limits.body) == (7, 12.5, 99)


def test_settings_have_the_defaults_of_the_options() -> None:
    """A gateway composed by hand and one from settings have the same limits."""
    plain, read = GatewayOptions(), GatewaySettings().options()

    for field in fields(GatewayOptions):
        if field.name != "limits":
            assert getattr(read, field.name) == getattr(plain, field.name), field.name
    assert read.limits.body == plain.limits.body


def test_an_issuer_is_needed_for_what_is_not_public() -> None:
    """Each setting is named with the routes that need it; with public routes alone none is needed."""
    missing = GatewayProcess(GatewaySettings(), table()).missing()

    assert [problem.partition(" ")[0] for problem in missing] == ["TOKEN_ISSUER", "TOKEN_AUDIENCE", "JWKS_URL"]
    assert all("(secret)" in problem for problem in missing)
    assert GatewayProcess(GatewaySettings(), table(public=True)).missing() == []


def test_revocations_need_a_broker() -> None:
    """A topic without a broker would leave the deny list empty, and nobody would notice."""
    with pytest.raises(ConfigError, match="KAFKA is not set: REVOCATIONS_TOPIC"):
        GatewaySettings.read({"REVOCATIONS_TOPIC": "sessions"})


async def test_a_taken_port_is_a_mistake_in_a_setting() -> None:
    """It is named with the variable, for the public port and the management port alike."""
    async with running() as it:
        for name, port in (("GATEWAY_PORT", it.gateway.port), ("MANAGEMENT_PORT", it.management.port)):
            with pytest.raises(ConfigError, match=f"{name}={port}: port {port} of 127.0.0.1 is taken"):
                async with running(**{name: str(port)}):
                    pass


async def test_events_of_the_configured_type_end_sessions() -> None:
    """From the configured topic; other types and what can't be read are passed over."""
    broker = MemoryBroker()
    await broker.create_topics({"sessions": 1})
    until = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()

    async def publish(kind: str, data: object) -> None:
        record = Envelope.record_for(
            topic="sessions", key="a", id=uuid7(), type=kind, source="/auth", data=json.dumps(data).encode()
        )
        async with broker.producer() as producer:
            assert await producer.publish([record]) == [None]

    told = {"REVOCATIONS_TOPIC": "sessions", "REVOCATIONS_TYPE": "logged.out", "KAFKA": "127.0.0.1:1"}
    async with running(broker, **told) as it:
        await publish("session.revoked", {"sid": "other type", "until": until})
        await publish("logged.out", {"sid": "no time"})
        await publish("logged.out", {"sid": "ended", "until": until, "reason": "logout"})
        denied = it.gateway.guard.denied
        await eventually(lambda: "ended" in denied)

        assert len(denied) == 1
