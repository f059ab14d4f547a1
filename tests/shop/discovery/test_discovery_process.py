"""The registry as the process that `shop run discovery` starts."""

import asyncio
import os
import signal
import socket
import sys

import pytest

from backstay.discovery import EurekaClient
from backstay.errors import ConfigError
from backstay.testing import eventually
from shop.discovery.main import build, settings

PROGRAM = "import os; from shop.discovery.main import build, settings; build(settings(os.environ)).run()"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def test_it_serves_until_it_is_told_to_stop() -> None:
    """Clients find each other through it; SIGTERM ends it orderly with status 0."""
    port = free_port()
    environ = {**os.environ, "DISCOVERY_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=environ)
    try:
        url = f"http://127.0.0.1:{port}/eureka"
        async with EurekaClient(url, app="orders", host="127.0.0.1", port=1, heartbeat=0.2, fetch=0.2) as orders:
            await eventually(lambda: orders.choose("orders").port == 1, timeout=30)
    finally:
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            status = await process.wait()

    assert status == 0


def test_settings_have_the_well_known_port() -> None:
    """Eureka's 8761, unless another is asked for."""
    assert settings({}).discovery_port == 8761
    assert settings({"DISCOVERY_PORT": "0"}).discovery_port == 0


def test_wrong_settings_are_all_named() -> None:
    """Every mistake at once, with key and value."""
    with pytest.raises(ConfigError) as wrong:
        settings({"DISCOVERY_PORT": "http", "EVICTION_INTERVAL": "0"})

    assert len(wrong.value.problems) == 2
    assert "DISCOVERY_PORT='http'" in wrong.value.problems[0]


def test_an_address_beyond_this_machine_needs_credentials() -> None:
    """Else whoever reaches the port could become any service; OPEN_REGISTRY says that this is wanted."""
    users = '[{"user": "orders", "passwords": ["a-long-password"], "apps": ["orders"]}]'
    with pytest.raises(ConfigError, match="OPEN_REGISTRY"):
        build(settings({"HOST": "0.0.0.0"}))
    with pytest.raises(ConfigError, match="REGISTRY_CREDENTIALS is not set: REGISTRY_PRIVATE_READS"):
        build(settings({"REGISTRY_PRIVATE_READS": "true"}))
    with pytest.raises(ConfigError, match="at least 12"):
        build(settings({"REGISTRY_CREDENTIALS": users.replace("a-long-", "")}))

    build(settings({"HOST": "0.0.0.0", "REGISTRY_CREDENTIALS": users, "REGISTRY_PRIVATE_READS": "true"}))
    build(settings({"HOST": "0.0.0.0", "OPEN_REGISTRY": "true"}))
