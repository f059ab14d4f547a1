"""The broker port on Kafka, by confluent-kafka's synchronous core.

The rule of this package: a consumer's client is touched by its own poll thread and by nobody else. The event loop
leaves wishes and marks in shared state; the poll thread acts on them and hands batches back, one wake-up each.
"""

from backstay.messaging.kafka.access import KafkaAccess
from backstay.messaging.kafka.broker import KafkaBroker
from backstay.messaging.kafka.settings import Flavor

__all__ = ["Flavor", "KafkaAccess", "KafkaBroker"]
