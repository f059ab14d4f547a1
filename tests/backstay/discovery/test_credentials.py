"""Who may register: HTTP Basic with users that are bound to applications."""

import hashlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from backstay.discovery import Credentials, EurekaClient, Registration, RegistryServer, wire_json
from backstay.discovery.credentials import is_loopback
from backstay.errors import ConfigError
from backstay.http import HttpClient
from backstay.testing import eventually

OLD, NEW, PAYMENTS = "orders-old-password", "p@ss:word/%, long", "payments-password"
HASHED = "sha256:" + hashlib.sha256(NEW.encode()).hexdigest()
USERS = json.dumps(
    [
        {"user": "orders", "passwords": [OLD, HASHED], "apps": ["orders"], "vips": ["buy.example"]},
        {"user": "payments", "passwords": [PAYMENTS], "apps": ["payments", "refunds"]},
        {"user": "operator", "passwords": ["operator-password"], "apps": ["*"]},
        {"user": "console", "passwords": ["console-password"], "apps": []},
    ]
)
ORDERS = Registration("ORDERS", "orders-1", "127.0.0.1", "127.0.0.1", 80, duration=15, dirty_at=1000)
CHANGES = (
    ("POST", "/eureka/apps/ORDERS", wire_json.write_registration(ORDERS)),
    ("PUT", "/eureka/v2/apps/orders/orders-1?status=UP", b""),
    ("PUT", "/eureka/apps/ORDERS/orders-1/status?value=DOWN", b""),
    ("DELETE", "/eureka/apps/%4fRDERS/orders-1/status", b""),
    ("PUT", "/apps/ORDERS/orders-1/metadata?zone=a", b""),
    ("DELETE", "/v2/apps/ORDERS/orders-1/", b""),
)
READS = ("/eureka/apps", "/apps/delta", "/eureka/apps/ORDERS", "/eureka/instances/orders-1", "/eureka/vips/orders", "/")


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


class Caller:
    """Requests with any Authorization headers."""

    def __init__(self, server: RegistryServer, http: HttpClient) -> None:
        self.server, self.http = server, http

    async def status(self, method: str, path: str, *authorization: str, body: bytes = b"") -> int:
        given = [("authorization", each) for each in authorization]
        headers = [("accept", "application/json"), ("content-type", "application/json"), *given]
        answer = await self.http.request(
            "127.0.0.1", self.server.port, method, path, headers=headers, body=body, timeout=5
        )
        assert (answer.status == 401) == ("www-authenticate" in answer.headers)
        assert answer.status not in (401, 403) or answer.body == b"" or b"virtual address" in answer.body
        return answer.status


@pytest.fixture(params=[False, True], ids=["public reads", "private reads"])
async def caller(request: pytest.FixtureRequest) -> AsyncIterator[Caller]:
    users = Credentials.read(USERS, private_reads=request.param)
    async with RegistryServer("127.0.0.1", 0, credentials=users) as server, HttpClient() as http:
        yield Caller(server, http)


@pytest.mark.parametrize("password", [OLD, NEW])
async def test_a_user_changes_its_own_application_with_either_password(caller: Caller, password: str) -> None:
    """Two passwords are valid at the same time; every kind of change is allowed."""
    statuses = [await caller.status(*change[:2], basic("orders", password), body=change[2]) for change in CHANGES]

    assert statuses == [204, 200, 200, 200, 200, 200]


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ((), 401),
        ((basic("orders", "wrong-password"),), 401),
        ((basic("orders", ""),), 401),
        ((basic("nobody", OLD),), 401),
        ((basic("", OLD),), 401),
        (("Basic " + b64encode(b"orders").decode(),), 401),
        (("Basic not base64!",), 401),
        (("Basic",), 401),
        (("Bearer " + OLD,), 401),
        ((basic("orders", OLD), basic("orders", OLD)), 400),
        ((basic("payments", PAYMENTS),), 403),
        ((basic("console", "console-password"),), 403),
        ((basic("operator", "operator-password"),), 200),
    ],
)
async def test_others_change_nothing(caller: Caller, given: tuple[str, ...], status: int) -> None:
    """Without a valid credential 401, with another application's 403, with two headers 400; nothing changes."""
    await caller.status(*CHANGES[0][:2], basic("orders", OLD), body=CHANGES[0][2])
    version = caller.server.leases.version

    statuses = {await caller.status(method, path, *given, body=body) for method, path, body in CHANGES[:-1]}

    assert {200 if each == 204 else each for each in statuses} == {status}
    assert (caller.server.leases.version == version) == (status != 200)


@pytest.mark.parametrize("detail", ["vipAddress", "secureVipAddress"])
@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("orders", 204),
        ("Orders,BUY.example", 204),
        ("", 204),
        ("payments", 403),
        ("PAYMENTS", 403),
        ("orders,payments", 403),
        ("orders, payments", 403),
        ("orders,", 403),
        ("unknown", 403),
        (f"{ORDERS.host}:{ORDERS.port}", 204),  # as Netflix's client has it without a configuration
        (f"{ORDERS.host}:1", 403),
    ],
)
async def test_a_registration_answers_to_addresses_of_its_own_only(
    caller: Caller, detail: str, address: str, status: int
) -> None:
    """Spring's discovery client finds instances by virtual address, not by application."""
    body = wire_json.write_registration(replace(ORDERS, details={detail: address}))

    assert await caller.status("POST", "/eureka/apps/ORDERS", basic("orders", OLD), body=body) == status
    assert caller.server.statistics().leases == (status == 204)
    assert await caller.status("POST", "/eureka/apps/ORDERS", basic("operator", "operator-password"), body=body) == 204


async def test_reading_needs_a_credential_if_it_is_private(caller: Caller) -> None:
    """Of any application; health and counts stay open, since they name no instance."""
    private = caller.server._rest._credentials.private_reads  # type: ignore[union-attr]
    anonymous = {await caller.status("GET", path) for path in READS}
    known = {await caller.status("GET", path, basic("console", "console-password")) for path in READS}

    assert anonymous == ({401} if private else {200, 403, 404})
    assert known == {200, 403, 404}
    assert [await caller.status("GET", path) for path in ("/health/ready", "/info", "/metrics")] == [200] * 3


async def test_refusals_are_counted(caller: Caller) -> None:
    """An operator sees that somebody tries."""
    await caller.status("DELETE", "/eureka/apps/ORDERS/x")
    await caller.status("DELETE", "/eureka/apps/ORDERS/x", basic("payments", PAYMENTS))

    answer = await caller.http.request("127.0.0.1", caller.server.port, "GET", "/metrics", timeout=5)

    assert b"discovery_unauthorized_requests_total 1\n" in answer.body
    assert b"discovery_forbidden_requests_total 1\n" in answer.body


async def test_our_client_sends_user_and_password_of_its_url() -> None:
    """Percent-decoded, as Java's client does; and neither shows in a message or a repr."""
    users = Credentials.read(USERS, private_reads=True)
    async with RegistryServer("127.0.0.1", 0, credentials=users) as server:
        url = f"http://orders:p%40ss%3Aword%2F%25%2C%20long@127.0.0.1:{server.port}/eureka"
        async with EurekaClient(url, app="orders", host="127.0.0.1", port=7, heartbeat=0.1, fetch=0.1) as client:
            await eventually(lambda: client.statistics().heartbeats > 0 and client.choose("orders").port == 7)
        assert server.statistics().leases == 0


async def test_our_client_says_why_it_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Missing or wrong, or another application's; the password isn't logged."""
    users = Credentials.read(USERS)
    async with RegistryServer("127.0.0.1", 0, credentials=users) as server:
        for user, password in (("orders", "hunter2-hunter2"), ("payments", PAYMENTS)):
            url = f"http://{user}:{password}@127.0.0.1:{server.port}/eureka"
            async with EurekaClient(url, app="orders", host="127.0.0.1", port=7, heartbeat=0.05) as client:
                await eventually(lambda client=client: client.statistics().failures > 0)  # type: ignore[misc]
                assert not client.registered

    assert "user and password in the registry's URL are missing or wrong" in caplog.text
    assert "not bound to this application" in caplog.text
    assert "hunter2" not in caplog.text
    assert PAYMENTS not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "https://orders:hunter2@registry:8761/eureka",
        "http://orders:hunter2@registry:port/eureka",
        "http://orders:hunter2@/eureka",
        "http://orders:hun/ter2@registry:8761/eureka",
        "orders:hunter2@registry:8761/eureka",
        "http://:hunter2@registry:8761/eureka",
        "http://or%3Aders:hunter2@registry:8761/eureka",
    ],
)
def test_a_wrong_url_never_shows_its_password(url: str) -> None:
    """What is wrong is said without user and password."""
    with pytest.raises(ConfigError) as wrong:
        EurekaClient(url)

    assert "ter2" not in repr(wrong.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "registry.example", ""])
def test_without_credentials_only_this_machine_is_served(host: str) -> None:
    """Unless it is asked for by name."""
    with pytest.raises(ConfigError, match="loopback address only"):
        RegistryServer(host, 0)

    RegistryServer(host, 0, open=True)
    RegistryServer(host, 0, credentials=Credentials.read(USERS))


def test_loopback_addresses() -> None:
    """By address and by name."""
    assert all(map(is_loopback, ("127.0.0.1", "127.1.2.3", "::1", "localhost", "LOCALHOST")))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "truncated"),
        ("[]", "the list is empty"),
        ("{}", "Expected `array`"),
        ('[{"user": "a", "passwords": [], "apps": []}]', "length >= 1"),
        ('[{"user": "a", "passwords": ["hunter2"], "apps": []}]', "at least 12"),
        ('[{"user": "a", "passwords": ["sha256:hunter2hunter2"], "apps": []}]', "64 hexadecimal"),
        ('[{"user": "a", "passwords": ["hunter2 hunter2"], "apps": []}]', "visible ASCII"),
        ('[{"user": "a:b", "passwords": ["hunter2hunter2"], "apps": []}]', "user"),
        ('[{"user": "a", "passwords": ["hunter2hunter2", "hunter2hunter3", "hunter2hunter4"], "apps": []}]', "<= 2"),
        ('[{"user": "a", "passwords": ["hunter2hunter2"], "apps": [], "app": "x"}]', "unknown field `app`"),
    ],
)
def test_wrong_credentials_are_refused_by_name(text: str, problem: str) -> None:
    """With what is allowed; no password is shown."""
    with pytest.raises(ConfigError, match=problem) as wrong:
        Credentials.read(text)

    assert "hunter2" not in repr(wrong.value)


def test_every_mistake_is_reported() -> None:
    """A weak password and a user that is there twice."""
    entry = {"user": "a", "passwords": ["short"], "apps": ["a"]}
    with pytest.raises(ConfigError) as wrong:
        Credentials.read(json.dumps([entry, entry]))

    assert len(wrong.value.problems) == 3


def test_verified_headers_are_bounded() -> None:
    """Many spellings of one header are recognised, and few are remembered; the digests alone don't give a password."""
    users = Credentials.read(USERS)
    header = basic("payments", PAYMENTS).split(" ")[1]

    for spaces in range(1, 500):
        found = users.identify("bAsIc" + " " * spaces + header)
        assert found is not None
        assert found.user == "payments"

    assert len(users._verified) <= 32
    assert PAYMENTS not in repr(users) + repr(users.identify("Basic " + header))
