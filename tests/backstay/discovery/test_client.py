"""The client, against a real registry on a real socket."""

import asyncio
from collections.abc import Callable

import pytest

from backstay.discovery import EurekaClient, NoInstance, RegistryServer
from backstay.errors import ConfigError
from backstay.http import HttpReply, HttpRequest, HttpServer
from backstay.testing import eventually


def client(port: int, app: str | None = None, **options: object) -> EurekaClient:
    fast: dict[str, object] = {"heartbeat": 0.1, "lease": 1, "fetch": 0.1, "timeout": 1.0, "port": 8080}
    return EurekaClient(f"http://127.0.0.1:{port}/eureka", app=app, host="127.0.0.1", **{**fast, **options})  # type: ignore[arg-type]


def is_up(looking: EurekaClient, app: str) -> Callable[[], bool]:
    return lambda: any(each.status == "UP" for each in looking.instances(app))


async def test_who_registers_is_found_and_who_leaves_is_gone() -> None:
    """Registration, lookup and deregistration between two clients."""
    async with RegistryServer(port=0) as server, client(server.port) as looking:
        async with client(server.port, "orders", metadata={"zone": "a"}) as orders:
            await eventually(lambda: orders.registered)
            await eventually(is_up(looking, "orders"))

            instance = looking.choose("orders")
            assert (instance.host, instance.port, instance.metadata) == ("127.0.0.1", 8080, {"zone": "a"})

        assert server.statistics().leases == 0
        assert server.statistics().cancelled == 1
        await eventually(lambda: not looking.instances("orders"))
        with pytest.raises(NoInstance):
            looking.choose("orders")


async def test_heartbeats_keep_the_lease() -> None:
    """An instance stays for longer than its lease as long as it beats."""
    async with RegistryServer(port=0) as server, client(server.port, "orders") as orders:
        await eventually(lambda: orders.statistics().heartbeats >= 12)

        assert server.statistics().expired == 0
        assert orders.statistics().registrations == 1


async def test_a_registry_that_comes_late_is_found() -> None:
    """Entering doesn't wait for the registry; once it is there the client registers."""
    async with RegistryServer(port=0) as server:
        port = server.port
    async with client(port, "orders") as orders:
        with pytest.raises(NoInstance):
            orders.choose("orders")
        assert not orders.registered
        assert not orders.healthy

        async with RegistryServer(port=port):
            await eventually(lambda: orders.registered)
            await eventually(is_up(orders, "orders"))
            assert orders.healthy


async def test_a_registry_that_restarted_gets_the_registration_again() -> None:
    """404 on a heartbeat makes the client register at once; meanwhile everybody keeps their list."""
    async with RegistryServer(port=0) as server:
        port = server.port
        async with client(port, "orders") as orders, client(port, lease=60) as looking:
            await eventually(is_up(looking, "orders"))
            await server.__aexit__(None, None, None)
            await eventually(lambda: looking.statistics().failures > 0)
            assert looking.choose("orders").port == 8080

            async with RegistryServer(port=port) as another:
                await eventually(lambda: another.statistics().leases == 1)
                assert orders.statistics().registrations == 2
                assert looking.choose("orders").port == 8080


async def test_a_registry_that_came_back_empty_doesnt_empty_the_list() -> None:
    """For one lease those known before are kept, then the registry is believed."""
    async with RegistryServer(port=0) as server:
        port = server.port
        async with client(port, lease=1) as looking:
            async with client(port, "orders"):
                await eventually(is_up(looking, "orders"))
                await server.__aexit__(None, None, None)
            async with RegistryServer(port=port) as another:
                seen = another.statistics().version
                await eventually(
                    lambda: looking.healthy and looking.last_fetch is not None and looking.last_fetch < 0.1
                )
                assert looking.choose("orders").port == 8080

                await eventually(lambda: not looking.instances("orders"))
                assert another.statistics().version == seen


async def test_an_expired_lease_is_registered_again() -> None:
    """A client that was cut off for too long comes back by itself."""
    async with RegistryServer(port=0) as server, client(server.port, "orders") as orders:
        await eventually(lambda: orders.registered)
        server.leases.cancel("orders", "127.0.0.1:orders:8080")

        await eventually(lambda: server.statistics().leases == 1)


@pytest.mark.parametrize("status", ["DOWN", "STARTING", "OUT_OF_SERVICE"])
async def test_a_status_is_told_and_taken_back(status: str) -> None:
    """Others see it; UP brings it back."""
    async with RegistryServer(port=0) as server, client(server.port, "orders") as orders:
        await eventually(lambda: orders.registered)

        await orders.set_status(status)
        assert server.leases.status_counts() == {status: 1}
        await eventually(lambda: orders.statistics().heartbeats > 3)
        assert server.leases.status_counts() == {status: 1}

        await orders.set_status("UP")
        assert server.leases.status_counts() == {"UP": 1}


async def test_a_status_set_while_the_registry_is_away_is_told_later() -> None:
    """Nothing is lost, and nobody waits."""
    async with RegistryServer(port=0) as server:
        port = server.port
    async with client(port, "orders") as orders:
        await orders.set_status("DOWN")

        async with RegistryServer(port=port) as another:
            await eventually(lambda: another.leases.status_counts() == {"DOWN": 1})


async def test_an_unknown_status_is_refused() -> None:
    """The mistake is the caller's and is said at once."""
    async with client(1) as looking:
        with pytest.raises(ValueError, match="status must be one of"):
            await looking.set_status("FINE")


async def test_announcing_later_registers_then() -> None:
    """A server that takes a free port knows it only after it listens."""
    async with RegistryServer(port=0) as server, client(server.port) as orders:
        await eventually(lambda: orders.healthy)
        assert server.statistics().leases == 0

        orders.announce("orders", 4711, host="127.0.0.1")

        await eventually(lambda: orders.registered)
        assert server.leases.app("orders")[0].registration.port == 4711
        await orders.leave()
        await orders.leave()
        assert server.statistics().leases == 0


async def test_a_second_registry_is_asked_when_the_first_is_away() -> None:
    """Several addresses: the one that answers is used."""
    async with RegistryServer(port=0) as gone:
        dead = gone.port
    async with RegistryServer(port=0) as server:
        urls = [f"http://127.0.0.1:{dead}/eureka", f"http://127.0.0.1:{server.port}/eureka"]
        async with EurekaClient(urls, app="orders", host="127.0.0.1", port=1, heartbeat=0.1, fetch=0.1) as orders:
            await eventually(is_up(orders, "orders"))


async def test_a_registry_that_answers_nonsense_is_not_believed() -> None:
    """A wrong answer counts as a failure and keeps the list."""
    answers = [b"<html>", b'{"applications": 7}', b"[]"]

    def nonsense(request: HttpRequest) -> HttpReply:
        return HttpReply(200 if request.method == "GET" else 204, answers[0], content_type="application/json")

    async with HttpServer(nonsense) as server, client(server.port) as looking:
        for _ in range(3):
            failures = looking.statistics().failures
            await eventually(lambda seen=failures: looking.statistics().failures > seen)  # type: ignore[misc]
            answers.append(answers.pop(0))
        assert not looking.healthy


async def test_leaving_a_registry_that_hangs_is_bounded() -> None:
    """A stop doesn't wait for a registry that accepts and never answers."""
    hanging = asyncio.Event()

    async def handler(request: HttpRequest) -> HttpReply:
        if request.method in ("GET", "POST") and not hanging.is_set():
            return HttpReply(204) if request.method == "POST" else HttpReply(200, b'{"applications": {}}')
        await asyncio.sleep(30)
        return HttpReply()

    async with HttpServer(handler, drain=0.01) as server:
        async with asyncio.timeout(5):
            async with client(server.port, "orders", timeout=0.3) as orders:
                await eventually(lambda: orders.registered)
                hanging.set()


@pytest.mark.parametrize("url", ["", "localhost:8761", "https://registry/eureka", "http://host:port"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    """With the address and an example of a right one."""
    with pytest.raises(ConfigError, match="registry address"):
        EurekaClient(url)
