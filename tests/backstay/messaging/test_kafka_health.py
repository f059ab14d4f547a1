"""An outage of the broker is reported, whichever errors the client happens to emit, and until the broker answers."""

import pytest
from confluent_kafka import KafkaError, KafkaException

from backstay.messaging.kafka.health import BrokerHealth


class Client:
    """A client whose broker answers or not."""

    def __init__(self) -> None:
        self.reachable = True
        self.probes = 0

    def list_topics(self, topic: str, timeout: float) -> None:
        self.probes += 1
        if not self.reachable:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT))


@pytest.fixture
def health() -> BrokerHealth:
    health = BrokerHealth()
    health.reached()
    return health


def test_a_lost_connection_alone_reports_the_outage(health: BrokerHealth) -> None:
    """The client doesn't have to say that all brokers are down: one it never connected to may not count as down."""
    client = Client()
    client.reachable = False
    health.on_error(KafkaError(KafkaError._TRANSPORT))
    assert health.problem is None  # one lost connection is no outage by itself

    health.probe(client, "orders")

    assert health.problem is not None
    assert "away" in health.problem


def test_a_record_fetched_before_the_outage_does_not_end_it(health: BrokerHealth) -> None:
    """All brokers down is reported once: a record still in the client's queue must not clear it."""
    health.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    health.delivered()

    assert health.problem is not None


def test_an_answer_ends_the_outage(health: BrokerHealth) -> None:
    """The first round trip that succeeds clears problem and doubt; a healthy client isn't probed."""
    client = Client()
    health.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    health.probe(client, "orders")
    assert health.problem is None

    health.probe(client, "orders")
    assert client.probes == 1


def test_one_of_several_brokers_may_go(health: BrokerHealth) -> None:
    """A doubt that the next round trip refutes is never reported."""
    client = Client()
    health.on_error(KafkaError(KafkaError._TRANSPORT))
    health.probe(client, "orders")

    assert health.problem is None
    assert not health.doubted
