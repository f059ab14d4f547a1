"""Settings: read once, every mistake at once, no secret shown."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Annotated, Literal

import pytest
from msgspec import Meta

from backstay.errors import ConfigError
from backstay.service import Address, Port, Secret, ServiceSettings, Settings


@dataclass(frozen=True, kw_only=True)
class Mine(Settings):
    database_url: Address
    window: Annotated[float, Meta(gt=0, le=60)] = 1.5
    port: Port = 0
    mode: Literal["sandbox", "live"] = "sandbox"
    debug: bool = False
    hosts: tuple[str, ...] = ()
    api_secret: Secret = Secret("")  # noqa: RUF009
    limit: int | None = None


def test_values_are_converted() -> None:
    """Every value arrives as its field's type; what is not set has its default."""
    environ = {"DATABASE_URL": "postgresql://x", "WINDOW": " 2 ", "DEBUG": "true", "HOSTS": "a, b,", "LIMIT": "7"}

    assert Mine(database_url=Address("postgresql://x"), window=2.0, debug=True, hosts=("a", "b"), limit=7) == Mine.read(
        environ
    )


def test_every_mistake_is_reported_at_once() -> None:
    """The error lists each key, its value and what is allowed."""
    with pytest.raises(ConfigError) as wrong:
        Mine.read({"WINDOW": "0", "PORT": "70000", "MODE": "test", "DEBUG": "perhaps"})
    problems = wrong.value.problems

    assert [problem.split("=")[0].split(" ")[0] for problem in problems] == [
        "DATABASE_URL",
        "WINDOW",
        "PORT",
        "MODE",
        "DEBUG",
    ]
    assert "a value is required" in problems[0]
    assert "WINDOW='0': must be float > 0 and ≤ 60" in problems[1]
    assert "one of sandbox, live" in problems[3]


def test_empty_is_not_set() -> None:
    """An empty variable is one that wasn't set, unless empty is a text that means something."""
    assert 1.5 == Mine.read({"DATABASE_URL": "x", "WINDOW": ""}).window  # noqa: SIM300
    assert ServiceSettings.read({"DISCOVERY_URL": ""}).discovery_url == ""


def test_secrets_are_masked() -> None:
    """Neither a secret nor the password in an address shows in a repr, or in an error."""
    shown = repr(Mine.read({"DATABASE_URL": "postgresql://orders:hunter2@db:5432/orders", "API_SECRET": "hunter2"}))

    assert "hunter2" not in shown
    assert "postgresql://orders:***@db:5432/orders" in shown
    assert Secret("hunter2") == "hunter2"


def test_settings_are_frozen() -> None:
    """Nobody changes settings after the start."""
    with pytest.raises(FrozenInstanceError):
        Mine.read({"DATABASE_URL": "x"}).port = 1  # type: ignore[misc]


def test_service_settings() -> None:
    """A service starts with no setting at all, and reads what the seams name."""
    settings = ServiceSettings.read({"PORT": "8081", "KAFKA_FLAVOR": "embedded", "HEARTBEAT_INTERVAL": "5"})

    assert (settings.port, settings.kafka_flavor, settings.heartbeat_interval) == (8081, "embedded", 5.0)
    assert ServiceSettings.read({}) == ServiceSettings()


@pytest.mark.parametrize("password", ["plain", "sl/ash", "a@t", "co:lon"])
def test_a_password_in_a_url_is_shown_nowhere(password: str) -> None:
    """Neither the form for people nor the refusal of a value has it, whatever characters it is made of."""
    assert repr(Address(f"postgresql://orders:{password}@db/orders")) == "'postgresql://orders:***@db/orders'"
    urls = f"https://u:{password}@auth/keys,https://v:{password}@auth-2/keys"
    with pytest.raises(ConfigError) as refused:
        ServiceSettings.read({"JWKS_URL": urls})
    assert password not in str(refused.value)
