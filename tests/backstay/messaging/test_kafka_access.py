"""What may be said of TLS, SASL and further options of Kafka's clients."""

import json
from typing import Any

import pytest

from backstay.errors import ConfigError
from backstay.messaging import KafkaAccess, KafkaBroker
from backstay.messaging.kafka.access import REFUSED
from backstay.service import ServiceSettings

SASL = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "KAFKA_SASL_USERNAME": "shop",
    "KAFKA_SASL_PASSWORD": "hunter2",
}
OAUTH = {
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
    "KAFKA_OPTIONS": '{"sasl.oauthbearer.method": "oidc", "sasl.oauthbearer.client.secret": "hunter2"}',
}


def test_nothing_said_is_nothing_set() -> None:
    """The library's defaults stay."""
    assert KafkaAccess.read({}).client_options() == {}
    assert ServiceSettings.read({}).kafka_client_options() == {}


@pytest.mark.parametrize("read", [KafkaAccess.read, ServiceSettings.read])
def test_every_variable_reaches_the_clients(read: Any) -> None:
    """For services and commands alike, under librdkafka's names."""
    found = read({**SASL, "KAFKA_CA": "/ca.pem", "KAFKA_OPTIONS": '{"socket.keepalive.enable": true}'})

    options = found.client_options() if isinstance(found, KafkaAccess) else found.kafka_client_options()
    assert options == {
        "security.protocol": "sasl_ssl",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "shop",
        "sasl.password": "hunter2",
        "ssl.ca.location": "/ca.pem",
        "socket.keepalive.enable": True,
    }
    assert "hunter2" not in repr(found)


def test_the_variables_can_be_handed_on() -> None:
    """To another process, which reads the same."""
    assert KafkaAccess.read(OAUTH).environ() == OAUTH
    access = KafkaAccess.read({**SASL, "KAFKA_OPTIONS": '{"linger.ms": 5}', "KAFKA": "a:1", "OTHER": "x"})

    assert access.environ() == {**SASL, "KAFKA_OPTIONS": '{"linger.ms": 5}'}
    assert KafkaAccess.read(access.environ()) == access


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL='TLS': must be one of PLAINTEXT, SSL"),
        ({**SASL, "KAFKA_SASL_MECHANISM": "GSSAPI"}, "KAFKA_SASL_MECHANISM='GSSAPI': must be one of PLAIN, SCRAM"),
        ({**SASL, "KAFKA_SASL_MECHANISM": ""}, "KAFKA_SASL_MECHANISM is not set"),
        ({**SASL, "KAFKA_SASL_PASSWORD": ""}, "SCRAM-SHA-512 needs both"),
        ({**SASL, "KAFKA_SASL_MECHANISM": "OAUTHBEARER"}, "KAFKA_SASL_PASSWORD have no effect with OAUTHBEARER"),
        ({**OAUTH, "KAFKA_OPTIONS": ""}, "OAUTHBEARER needs sasl.oauthbearer.method=oidc"),
        ({**OAUTH, "KAFKA_OPTIONS": '{"sasl.oauthbearer.method": "default"}'}, "needs sasl.oauthbearer.method=oidc"),
        ({"KAFKA_SASL_USERNAME": "shop"}, r"KAFKA_SASL_\* has no effect with KAFKA_SECURITY_PROTOCOL=PLAINTEXT"),
        ({"KAFKA_CA": "/ca.pem"}, "KAFKA_CA has no effect"),
        ({"KAFKA_OPTIONS": "acks=0"}, "must be a JSON object"),
        ({"KAFKA_OPTIONS": "[" * 100_000}, "must be a JSON object"),
        ({"KAFKA_OPTIONS": "[]"}, "must be a JSON object"),
        ({"KAFKA_OPTIONS": '{"acks": 0}'}, "acks can't be changed: no event may be lost"),
        ({"KAFKA_OPTIONS": '{"error_cb": "x"}'}, "error_cb must be an option of librdkafka"),
        ({"KAFKA_OPTIONS": '{"linger.ms": [1]}'}, "linger.ms must be an option of librdkafka"),
        ({**SASL, "KAFKA_OPTIONS": '{"sasl.mechanisms": "PLAIN"}'}, "sasl.mechanism is given by a setting of its own"),
        ({**SASL, "KAFKA_OPTIONS": '{"sasl.password": "x"}'}, "sasl.password is given by a setting of its own"),
    ],
)
@pytest.mark.parametrize("read", [KafkaAccess.read, ServiceSettings.read])
def test_what_contradicts_itself_is_refused(read: Any, given: dict[str, str], reason: str) -> None:
    """When it is read, by name, and without the password."""
    with pytest.raises(ConfigError, match=reason) as refused:
        read(given)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_options_that_carry_invariants_are_refused(name: str) -> None:
    """By every way in: the variable, and the library's own argument."""
    with pytest.raises(ConfigError, match=rf"{name} can't be changed"):
        KafkaAccess.read({"KAFKA_OPTIONS": json.dumps({name: 1})})
    with pytest.raises(ConfigError, match=rf"{name} can't be changed"):
        KafkaBroker("127.0.0.1:1", options={name: 1})


def test_all_mistakes_are_told_together() -> None:
    """One start shows all of them."""
    with pytest.raises(ConfigError) as refused:
        KafkaAccess.read({"KAFKA_SASL_USERNAME": "a", "KAFKA_CA": "b", "KAFKA_OPTIONS": '{"acks": 1, "retries": 0}'})

    assert len(refused.value.problems) == 4


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"no.such": 1}, "No such configuration property"),
        ({"fetch.min.bytes": "x"}, "Invalid value"),
        ({"security.protocol": "ssl", "ssl.ca.location": "/nowhere"}, "ssl.ca.location failed"),
    ],
)
def test_what_the_library_does_not_take_is_refused_at_once(options: dict[str, Any], reason: str) -> None:
    """Not when the first event is sent."""
    with pytest.raises(ConfigError, match=reason):
        KafkaBroker("127.0.0.1:1", options=options)
