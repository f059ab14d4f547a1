"""What `make up` can be told, and what it says to nonsense."""

from pathlib import Path
from urllib.parse import quote

import pytest

from backstay.errors import ConfigError
from lab.system.options import Options


def test_nothing_said_means_everything_embedded() -> None:
    """The defaults need nothing but Python."""
    options = Options.read({})

    assert (options.kafka, options.flavor, options.gateway_port, options.discovery_port) == (
        "embedded",
        "embedded",
        8080,
        8761,
    )
    assert options.demo
    assert options.home.name == ".backstay"


def test_everything_can_be_said() -> None:
    """Each variable has its effect."""
    options = Options.read(
        {
            "BACKSTAY_HOME": "/somewhere",
            "KAFKA": "one:9092,two:9092",
            "DATABASE_URL": "postgresql://{service}@db/{service}",
            "SMTP_URL": "smtp://mail:25",
            "GATEWAY_PORT": "0",
            "DISCOVERY_PORT": "9000",
            "DEMO": "no",
        }
    )

    assert options == Options(
        home=Path("/somewhere"),
        kafka="one:9092,two:9092",
        database_url="postgresql://{service}@db/{service}",
        smtp_url="smtp://mail:25",
        gateway_port=0,
        discovery_port=9000,
        demo=False,
    )
    assert options.flavor == "apache"
    assert not options.kafka_is_ours


def test_your_databases_need_a_broker_that_remembers() -> None:
    """The embedded broker would need them emptied, and nothing is dropped in what we did not create."""
    with pytest.raises(ConfigError, match="nothing is ever dropped in a database that we did not create"):
        Options.read({"DATABASE_URL": "postgresql://u@db/{service}"})

    assert Options.read({"DATABASE_URL": "postgresql://u@db/{service}", "KAFKA": "apache"}).database_url


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody has to fix one to hear of the next."""
    with pytest.raises(ConfigError) as caught:
        Options.read(
            {
                "KAFKA": "everywhere",
                "GATEWAY_PORT": "80800",
                "DISCOVERY_PORT": "x",
                "DEMO": "perhaps",
                "SMTP_URL": "http://mail",
                "DATABASE_URL": "postgresql://u@db/shop",
            }
        )

    problems = caught.value.problems
    for name in ("KAFKA", "GATEWAY_PORT", "DISCOVERY_PORT", "DEMO", "SMTP_URL", "DATABASE_URL"):
        assert sum(problem.startswith(name) for problem in problems) == 1


def test_passwords_are_not_shown() -> None:
    """A repr may end in a log."""
    assert "hunter2" not in repr(Options(database_url="postgresql://u:hunter2@db/{service}"))


SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "PLAIN",
    "KAFKA_SASL_USERNAME": "shop",
    "KAFKA_SASL_PASSWORD": "hunter2",
}


def test_tls_and_credentials_of_what_is_yours() -> None:
    """They reach every service and command, and show nowhere."""
    options = Options.read(
        {
            **SASL,
            "KAFKA": "kafka:9093",
            "DATABASE_URL": "postgresql://shop@db/{service}",
            "DATABASE_CA": __file__,
            "SMTP_URL": "smtp://mail",
            "SMTP_TLS": "starttls",
        }
    )

    assert options.kafka_settings == SASL
    expected = f"postgresql://shop@db/{{service}}?sslrootcert={quote(__file__)}&sslmode=verify-full"
    assert options.database_url == expected
    assert options.smtp_settings == {"SMTP_TLS": "starttls"}
    assert "hunter2" not in repr(options)


def test_tls_of_what_we_start_ourselves_is_refused() -> None:
    """It would have no effect; each is named."""
    with pytest.raises(ConfigError) as refused:
        Options.read({**SASL, "KAFKA": "apache", "DATABASE_SSLMODE": "require", "SMTP_TLS": "off"})

    told = "\n".join(refused.value.problems)
    assert len(refused.value.problems) == 3
    for name in (*SASL, "DATABASE_SSLMODE", "SMTP_TLS"):
        assert name in told
    assert "hunter2" not in told
