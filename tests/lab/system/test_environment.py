"""Every service is told what it needs and nothing that belongs to another."""

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from backstay.dev.home import Home
from lab.system.environment import Resources, environment
from lab.system.options import Options
from shop import topology

PORTS = {"gateway": 1, "discovery": 2, "auth": 3, "auth-2": 4}


def told(home: Home, name: str, **options: object) -> dict[str, str]:
    resources = Resources(
        bootstrap="127.0.0.1:3",
        flavor="embedded",
        smtp_url="smtp://127.0.0.1:4",
        databases={each: f"postgresql://{each}/{each}" for each in topology.DATABASES},
    )
    return environment(topology.service(name), home=home, options=Options(**options), resources=resources, ports=PORTS)


def test_databases_and_secrets_are_each_services_own(tmp_path: Path) -> None:
    """No service learns another's database, secret, or the admin's."""
    home = Home(tmp_path)
    for service in topology.SERVICES:
        values = told(home, service.name)
        others = {name for name in topology.DATABASES if name != service.name}
        assert not any(f"postgresql://{name}/" in " ".join(values.values()) for name in others)
        if service.name != "auth":
            assert home.secret("admin") not in values.values()
        if not service.scopes:
            assert "CLIENT_SECRET" not in values


def test_each_service_registers_with_its_own_credential(tmp_path: Path) -> None:
    """The registry knows one for each, bound to the service's name; no service is given another's."""
    home = Home(tmp_path)
    users = {each["user"]: each for each in json.loads(told(home, "discovery")["REGISTRY_CREDENTIALS"])}
    registrants = {service.name for service in topology.SERVICES} - {"discovery"}

    assert set(users) == registrants
    assert len({user["passwords"][0] for user in users.values()}) == len(registrants)
    for name in registrants:
        values = told(home, name)
        (password,) = users[name]["passwords"]
        assert users[name]["apps"] == [name]
        assert values["DISCOVERY_URL"] == f"http://{name}:{password}@127.0.0.1:2/eureka"
        assert "REGISTRY_CREDENTIALS" not in values
        assert (home.path / "secrets" / f"registry.{name}").stat().st_mode & 0o077 == 0


def test_fixed_ports_are_three(tmp_path: Path) -> None:
    """Everybody but gateway, discovery and auth takes a free port."""
    ports = {service.name: told(Home(tmp_path), service.name)["PORT"] for service in topology.SERVICES}

    assert ports.pop("gateway") == "1"
    assert ports.pop("discovery") == "2"
    assert ports.pop("auth") == "3"
    assert set(ports.values()) == {"0"}


def test_the_shell_does_not_leak_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs here doesn't depend on what else is set, least of all faults."""
    monkeypatch.setenv("FAULTS", "orders.checkout.after-save=kill")
    monkeypatch.setenv("DATABASE_URL", "postgresql://mine")

    assert "FAULTS" not in told(Home(tmp_path), "orders")
    assert "mine" not in told(Home(tmp_path), "orders")["DATABASE_URL"]


def test_tests_arm_faults_by_file(tmp_path: Path) -> None:
    """Each service reads a file of its own, only if it is given one."""
    assert "FAULTS_FILE" not in told(Home(tmp_path), "orders")
    assert told(Home(tmp_path), "orders", faults=tmp_path)["FAULTS_FILE"] == str(tmp_path / "orders")


def test_the_map_is_consistent() -> None:
    """Topics, calls and stop groups name services and topics that exist."""
    names = {service.name for service in topology.SERVICES}
    for service in topology.SERVICES:
        assert set(service.consumes) | set(service.publishes) <= set(topology.TOPICS)
        assert set(service.calls) <= names
    assert sorted(name for group in topology.STOP_ORDER for name in group) == sorted(names)
    with pytest.raises(KeyError, match="there are: discovery"):
        topology.service("nobody")


def test_keys_and_tokens_come_from_fixed_addresses(tmp_path: Path) -> None:
    """Of every auth there is; the registry has no say in it."""
    values = told(Home(tmp_path), "orders")

    assert values["JWKS_URL"].split(",") == [f"http://127.0.0.1:{port}/.well-known/jwks.json" for port in (3, 4)]
    assert values["TOKEN_URL"].split(",") == [f"http://127.0.0.1:{port}/oauth2/token" for port in (3, 4)]
    assert told(Home(tmp_path), "gateway")["JWKS_URL"] == values["JWKS_URL"]


def test_auth_knows_whom_each_service_may_call(tmp_path: Path) -> None:
    """A token is for one of them, and for nobody else."""
    clients = {client["id"]: client["audience"] for client in json.loads(told(Home(tmp_path), "auth")["CLIENTS"])}

    assert clients == {service.name: " ".join(service.calls) for service in topology.SERVICES if service.scopes}
    assert clients["orders"] == "payments"


ADVISED = """
import ctypes
malloc = ctypes.CDLL(None).malloc
malloc.argtypes, malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
address, inside = malloc(19 << 20), False
for line in open("/proc/self/smaps"):
    first, _, rest = line.partition("-")
    if first.isalnum() and " " in rest and not first[0].isupper():
        inside = int(first, 16) <= address < int(rest.split()[0], 16)
    elif inside and line.startswith("VmFlags:"):
        print("hg" in line.split())
"""


def test_passwords_are_hashed_on_huge_pages(tmp_path: Path) -> None:
    """auth alone asks for them: memory as large as a hash's is advised so, where the C library can do it."""
    values = {service.name: told(Home(tmp_path), service.name) for service in topology.SERVICES}
    assert [name for name, given in values.items() if "GLIBC_TUNABLES" in given] == ["auth"]

    def advised(environ: dict[str, str]) -> str:
        ran = subprocess.run([sys.executable, "-c", ADVISED], env=environ, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    if Path("/sys/kernel/mm/transparent_hugepage/enabled").exists() and platform.libc_ver() >= ("glibc", "2.35"):
        modes = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
        without = {name: value for name, value in values["auth"].items() if name != "GLIBC_TUNABLES"}
        assert advised(without) == "False"
        assert advised(values["auth"]) == str("[madvise]" in modes)
