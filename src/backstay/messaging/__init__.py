"""Events over Kafka: typed events, CloudEvents on the wire, a broker port, and consumers whose effect happens once."""

from backstay.messaging.broker import Broker, Producer, Sink, Subscription, SubscriptionStatus, Tail
from backstay.messaging.envelope import Envelope
from backstay.messaging.errors import BrokerUnavailable, MessagingError, PublishError, TopicError, Unreadable
from backstay.messaging.event import Event, EventSpec, event_spec
from backstay.messaging.kafka import KafkaBroker
from backstay.messaging.memory import MemoryBroker
from backstay.messaging.record import Partition, Record

__all__ = [
    "Broker",
    "BrokerUnavailable",
    "Envelope",
    "Event",
    "EventSpec",
    "KafkaBroker",
    "MemoryBroker",
    "MessagingError",
    "Partition",
    "Producer",
    "PublishError",
    "Record",
    "Sink",
    "Subscription",
    "SubscriptionStatus",
    "Tail",
    "TopicError",
    "Unreadable",
    "event_spec",
]
