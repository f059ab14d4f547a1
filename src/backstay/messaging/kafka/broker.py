"""The Kafka cluster: topics, and the makers of producers, subscriptions and tails."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from backstay.errors import ConfigError
from backstay.messaging.broker import Sink
from backstay.messaging.errors import BrokerUnavailable, TopicError
from backstay.messaging.kafka.faults import cause, words
from backstay.messaging.kafka.producer import KafkaProducer
from backstay.messaging.kafka.settings import Flavor, Protocol, Settings, log
from backstay.messaging.kafka.subscription import KafkaSubscription
from backstay.messaging.kafka.tail import KafkaTail
from backstay.messaging.kafka.transactions import KafkaTransactions
from backstay.messaging.record import Partition

TOPIC_TIMEOUT = 15.0  # seconds for the creation of topics
_TOPIC = {"retention.ms": "-1", "retention.bytes": "-1", "cleanup.policy": "delete"}


class KafkaBroker:
    """A `Broker` on Kafka. Raises ConfigError, when made, for what no client can be made of.

    bootstrap: `host:port[,host:port…]`; flavor: `apache`, or `embedded` for the demo's small broker; options: more
    librdkafka settings for every client, such as TLS and SASL; replication: of topics it creates, None = the broker's
    default; protocol: of consumer groups, `classic` or `consumer` (KIP-848, Apache Kafka 4); instance: a name that
    stays when this process is started again, and that no other one has, makes its members static.
    """

    def __init__(
        self,
        bootstrap: str,
        *,
        flavor: Flavor = "apache",
        client_id: str = "backstay",
        replication: int | None = None,
        options: Mapping[str, Any] | None = None,
        protocol: Protocol = "classic",
        instance: str | None = None,
    ) -> None:
        self._settings = Settings(bootstrap, flavor, client_id, options or {}, protocol, instance)
        if options:
            _check_options(options)
        self._replication = replication or (1 if flavor == "embedded" else -1)
        self._admin: AdminClient | None = None

    def __repr__(self) -> str:
        return f"KafkaBroker({self._settings.bootstrap!r}, flavor={self._settings.flavor!r})"

    async def create_topics(self, topics: Mapping[str, int]) -> None:
        """Create those that do not exist; TopicError if the broker refuses, BrokerUnavailable if it is away."""
        if not topics:
            return
        wanted = [
            NewTopic(name, partitions, self._replication, config=dict(_TOPIC)) for name, partitions in topics.items()
        ]
        created = self._client().create_topics(wanted, operation_timeout=TOPIC_TIMEOUT, request_timeout=TOPIC_TIMEOUT)
        for name, future in created.items():
            try:
                async with asyncio.timeout(TOPIC_TIMEOUT + 1.0):
                    await asyncio.wrap_future(future)
            except TimeoutError as error:
                raise BrokerUnavailable(f"{self._settings.bootstrap} did not create topic {name!r} in time") from error
            except KafkaException as error:
                self._refused(name, cause(error))

    def producer(self) -> KafkaProducer:
        """As in `Broker`."""
        return KafkaProducer(self._settings.producer())

    def transactional(self, ident: str) -> KafkaTransactions:
        """As in `Broker`."""
        if self._settings.flavor == "embedded":
            raise ConfigError("the embedded broker shows aborted transactions to everybody: use Apache Kafka")
        return KafkaTransactions(ident, self._settings)

    def subscribe(
        self,
        group: str,
        topics: Sequence[str],
        sink: Sink,
        *,
        started: Collection[Partition] = (),
        watch_end: bool = False,
        gather: float = 0.0,
    ) -> KafkaSubscription:
        """As in `Broker`."""
        settings = replace(self._settings, gather=gather)
        return KafkaSubscription(settings, group, topics, sink, frozenset(started), watch_end=watch_end)

    def tail(self, topic: str, since: datetime) -> KafkaTail:
        """As in `Broker`."""
        return KafkaTail(self._settings, topic, since)

    async def ping(self, timeout: float = 1.0) -> None:
        """As in `Broker`."""
        try:
            await asyncio.to_thread(self._client().list_topics, timeout=timeout)
        except KafkaException as error:
            raise BrokerUnavailable(f"no answer from {self._settings.bootstrap}: {words(cause(error))}") from error

    async def aclose(self) -> None:
        """As in `Broker`."""
        self._admin = None

    def _client(self) -> AdminClient:
        if self._admin is None:
            self._admin = AdminClient(self._settings.admin())
        return self._admin

    def _refused(self, name: str, error: KafkaError) -> None:
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return
        if error.code() in {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN}:
            raise BrokerUnavailable(f"{self._settings.bootstrap} did not create topic {name!r}: {words(error)}")
        raise TopicError(f"topic {name!r} could not be created: {words(error)}")


def _check_options(options: Mapping[str, Any]) -> None:
    """ConfigError for an unknown option, a value that it can't have, or a certificate that can't be read.

    Only the library knows, when it makes a client; this one has no address and meets nobody.
    """
    try:
        AdminClient({**options, "logger": log})  # type: ignore[dict-item]  # its stubs know no logger
    except KafkaException as error:
        raise ConfigError(f"Kafka's options: {words(cause(error))}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"Kafka's options: {error}") from None
