"""The list as a client reads it: whole, bounded, and without holding up the event loop."""

import asyncio
import gzip
import json
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from backstay.discovery import BadInstance, EurekaClient, LeaseRegistry, Registration, RegistryServer
from backstay.discovery.limits import MAX_LEASES
from backstay.discovery.listing import read_list
from backstay.testing import eventually

DOCUMENT = {"applications": {"application": [{"name": "A", "instance": [{"app": "A", "hostName": "é", "port": 7}]}]}}
HOLD = 0.02  # seconds of the loop at a time
TRIES = 10  # since other programs of the machine only ever add to it


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lambda text: gzip.compress(text, mtime=0) + b"after the end"])
def test_a_list_is_read_plain_and_packed(pack: Callable[[bytes], bytes]) -> None:
    """Both forms give the same."""
    text = json.dumps(DOCUMENT, ensure_ascii=False, indent=1).encode()

    found = read_list(pack(text), None if pack is bytes else "gzip")

    assert [(each.host, each.port) for each in found["a"]] == [("é", 7)]


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(b"[" + b" " * 5_000_000 + b"]"), "gzip"),
        (b" " * 2_000_000, None),
        (gzip.compress(b"{}" * 1000)[:-9], "gzip"),
        (b"not packed at all", "gzip"),
        (b"", "gzip"),
        (b"{}", "br"),
        (b"\xff", None),
        (b"{" * 1000, None),
        (b'{"applications":' * 100_000, None),
        (b'{"applications":{"application":' + b"[" * 900_000, None),
        (b'{"applications":{}} x', None),
        (b'{"applications":{"application":[{},]}}', None),
        (b'{"applications":{"application":[{} {}]}}', None),
        (b'{"applications":{"a" 1}}', None),
        (b"", None),
        (b"{}", None),
    ],
    ids=range(16),
)
def test_what_is_no_list_or_too_long_is_refused(body: bytes, encoding: str | None) -> None:
    """Also a small answer that unpacks to a large one; never an error of another kind."""
    with pytest.raises(BadInstance):
        read_list(body, encoding, limit=1_000_000)


def crowd(size: int) -> LeaseRegistry:
    """So many instances in a hundred applications, as Spring's register."""
    leases = LeaseRegistry()
    for number in range(size):
        name, host = f"APP-{number % 100}", f"10.0.{number // 250}.{number % 250}"
        url = f"http://{host}:8080"
        details = {"homePageUrl": f"{url}/", "statusPageUrl": f"{url}/actuator/info", "vipAddress": name.lower()}
        details |= {"healthCheckUrl": f"{url}/actuator/health", "secureVipAddress": name.lower()}
        metadata = {"zone": "z1", "management.port": "8080", "version": "1.0"}
        held = Registration(name, f"host-{number}:8080", host, host, 8080, details=details, metadata=metadata)
        leases.register(held, time.time())
    return leases


async def test_a_full_registry_is_read_without_holding_up_the_loop() -> None:
    """All leases that a registry takes arrive; a beat beside it in the same loop is hardly late."""
    leases = crowd(MAX_LEASES)
    async with RegistryServer(port=0, leases=leases) as server:
        url = f"http://127.0.0.1:{server.port}/eureka"
        async with EurekaClient(url, fetch=30, timeout=30) as client:
            await eventually(lambda: client.last_fetch is not None, timeout=60)
            assert sum(client.statistics().up.values()) == MAX_LEASES
            assert len(client.instances("app-7")) == MAX_LEASES // 100
            response = await client._transport.fetch()
            assert response.headers["content-encoding"] == "gzip"

            held = [await longest_hold(asyncio.to_thread(client._believe, response, 0.0, False))]
            while held[-1] >= HOLD and len(held) < TRIES:
                held.append(await longest_hold(asyncio.to_thread(client._believe, response, 0.0, False)))

    assert min(held) < HOLD, held


async def longest_hold(work: Coroutine[Any, Any, object]) -> float:
    """The most CPU seconds of this process between two turns of its loop: other processes have no part in them."""
    task, latest = asyncio.create_task(work), 0.0
    while not task.done():
        before = time.process_time()
        await asyncio.sleep(0.001)
        latest = max(latest, time.process_time() - before - 0.001)
    await task
    return latest
