"""Settings of the clients: one place for every librdkafka option, per flavor of broker.

`apache` is Apache Kafka or any broker that does what it does. `embedded` is the small broker of the demo and of tests
without Java: groups need short sessions and the range assignor there, watermarks and times cannot be trusted.

Groups are `classic` (cooperative-sticky) or `consumer` (KIP-848, Apache Kafka 4: the broker assigns, and its settings
say how long a silent member is waited for). With an `instance` membership is static: a member that comes back within
its session gets its partitions back, and nobody else is disturbed by its restart.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from backstay.errors import ConfigError
from backstay.messaging.kafka.access import option_problems

Flavor = Literal["apache", "embedded"]
Protocol = Literal["classic", "consumer"]

log = logging.getLogger("backstay.messaging.kafka")

GATHERED = 65_536  # bytes that are worth sending before the time to gather is over

_COMMON: Mapping[str, Any] = {
    "socket.timeout.ms": 4000,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 10_000,
}
_PRODUCER: Mapping[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # keys land where Java puts them
    "linger.ms": 0,
    # The caller's own time-out decides: a message that expired alone would leave a gap that its successors overtake.
    "message.timeout.ms": 0,
    # After a refused batch nothing that follows it goes out: the client stops, and whoever asked begins again.
    "enable.gapless.guarantee": True,
    "topic.metadata.propagation.max.ms": 5000,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
}
_TRANSACTIONS: Mapping[str, Any] = {
    # An abort takes back what a refused batch would leave behind: no other guarantee is needed.
    **{name: value for name, value in _PRODUCER.items() if name != "enable.gapless.guarantee"},
    # Readers of what is committed wait behind an open transaction, so long at most if nobody takes its id over.
    "transaction.timeout.ms": 60_000,
}
_CONSUMER: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "queued.max.messages.kbytes": 8192,
    "fetch.max.bytes": 8_388_608,
}
_MEMBER: dict[Flavor, Mapping[str, Any]] = {
    "apache": {
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 1500,
        "partition.assignment.strategy": "cooperative-sticky",
    },
    "embedded": {
        "session.timeout.ms": 1000,
        "heartbeat.interval.ms": 160,
        "partition.assignment.strategy": "range",
        "fetch.wait.max.ms": 50,
    },
}
# A restart has to fit into the session of a static member, or it was for nothing.
_STATIC_SESSION: Mapping[str, Any] = {"session.timeout.ms": 20_000, "heartbeat.interval.ms": 3000}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings to reach a cluster and to be a member of a group there.

    options: librdkafka settings that go to every client, such as TLS and SASL, none of those in `REFUSED`;
    instance: the name of this instance of a service, for static membership.
    """

    bootstrap: str
    flavor: Flavor
    client_id: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    protocol: Protocol = "classic"
    instance: str | None = None
    gather: float = 0.0
    """Seconds for which the broker may hold records back until there are more of them."""

    def __post_init__(self) -> None:
        problems = [f"options: {problem}" for problem in option_problems(self.options)]
        if self.protocol not in ("classic", "consumer"):
            problems.append(f"group protocol {self.protocol!r}: must be 'classic' or 'consumer'")
        if self.flavor == "embedded" and (self.protocol != "classic" or self.instance is not None):
            problems.append("the embedded broker knows classic groups without static members only: use Apache Kafka")
        if problems:
            raise ConfigError(problems)

    def admin(self) -> dict[str, Any]:
        """For the client that creates topics and pings."""
        return self._for({"reconnect.backoff.max.ms": 200})

    def producer(self) -> dict[str, Any]:
        """For a producer that never loses, doubles or reorders within its life."""
        return self._for(_PRODUCER)

    def transactional(self, ident: str) -> dict[str, Any]:
        """For a producer of transactions."""
        return self._for({**_TRANSACTIONS, "transactional.id": ident})

    def member(self, group: str, *, watch_end: bool) -> dict[str, Any]:
        """For a member of a group that commits by itself and never jumps to another offset."""
        own = {"group.id": group, "auto.offset.reset": "error", "enable.partition.eof": watch_end}
        return self._for({**_CONSUMER, **self._membership(), **self._patience(), **own})

    def _patience(self) -> dict[str, Any]:
        if not self.gather or self.flavor == "embedded":
            return {}
        return {"fetch.min.bytes": GATHERED, "fetch.wait.max.ms": max(1, round(self.gather * 1000))}

    def _membership(self) -> dict[str, Any]:
        static = {} if self.instance is None else {"group.instance.id": self.instance}
        if self.protocol == "consumer":
            return {"group.protocol": "consumer", **static}
        return {**_MEMBER[self.flavor], **(_STATIC_SESSION if static else {}), **static}

    def reader(self, name: str) -> dict[str, Any]:
        """For a reader without a group; `name` is demanded by the library and never reaches the broker."""
        wait = {"fetch.wait.max.ms": 50} if self.flavor == "embedded" else {}
        return self._for({**_CONSUMER, "group.id": name, "auto.offset.reset": "earliest", **wait})

    def _for(self, kind: Mapping[str, Any]) -> dict[str, Any]:
        who = {"bootstrap.servers": self.bootstrap, "client.id": self.client_id, "logger": log}
        return {**_COMMON, **kind, **who, **self.options}
