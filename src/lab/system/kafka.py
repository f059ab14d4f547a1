"""The broker of a system, for commands beside its services: reached as the services reach it."""

from collections.abc import Mapping
from typing import Literal, cast

from backstay.dev.home import Running
from backstay.messaging import KafkaAccess, KafkaBroker


def broker_of(running: Running, *, client_id: str) -> KafkaBroker:
    """Return the broker of a running system; close it when done."""
    return broker(running.kafka, running.kafka_flavor, running.kafka_settings, client_id=client_id)


def broker(bootstrap: str, flavor: str, settings: Mapping[str, str], *, client_id: str) -> KafkaBroker:
    """Return a broker by its address and the variables for TLS and SASL. Raises ConfigError for what they can't be."""
    return KafkaBroker(
        bootstrap,
        flavor=cast(Literal["apache", "embedded"], flavor),
        client_id=client_id,
        options=KafkaAccess.read(settings).client_options(),
    )
