"""Events over Kafka: typed events, CloudEvents on the wire, a broker port, and consumers whose effect happens once."""

from backstay.messaging.broker import (
    Broker,
    Producer,
    Sink,
    Subscription,
    SubscriptionStatus,
    Tail,
    TransactionalProducer,
)
from backstay.messaging.consumer import Consumer, ConsumerStatistics
from backstay.messaging.dead_letters import (
    DeadLetter,
    Decision,
    Parked,
    audit,
    discard,
    list_dead_letters,
    replay,
)
from backstay.messaging.envelope import Envelope
from backstay.messaging.errors import (
    BrokerUnavailable,
    Fenced,
    MessagingError,
    PublishError,
    TopicError,
    TransactionLost,
    Unreadable,
)
from backstay.messaging.event import Event, EventSpec, event_spec
from backstay.messaging.handlers import SHARED, Locks
from backstay.messaging.inbox import prune_inbox
from backstay.messaging.kafka import KafkaAccess, KafkaBroker
from backstay.messaging.marks import forget_start
from backstay.messaging.memory import MemoryBroker
from backstay.messaging.record import Partition, Record

__all__ = [
    "SHARED",
    "Broker",
    "BrokerUnavailable",
    "Consumer",
    "ConsumerStatistics",
    "DeadLetter",
    "Decision",
    "Envelope",
    "Event",
    "EventSpec",
    "Fenced",
    "KafkaAccess",
    "KafkaBroker",
    "Locks",
    "MemoryBroker",
    "MessagingError",
    "Parked",
    "Partition",
    "Producer",
    "PublishError",
    "Record",
    "Sink",
    "Subscription",
    "SubscriptionStatus",
    "Tail",
    "TopicError",
    "TransactionLost",
    "TransactionalProducer",
    "Unreadable",
    "audit",
    "discard",
    "event_spec",
    "forget_start",
    "list_dead_letters",
    "prune_inbox",
    "replay",
]
