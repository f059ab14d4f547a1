"""Reachability of the broker, decided by round trips."""

from typing import Any

from confluent_kafka import KafkaError, KafkaException

from backstay.messaging.kafka.faults import cause, words

AWAY = frozenset({KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE, KafkaError._AUTHENTICATION})
"""Errors of a client that mean by themselves that no broker can be reached."""
PROBE_TIMEOUT = 0.5  # seconds for the broker's answer to a probe


class BrokerHealth:
    """The reachability of the broker as one client sees it; used on that client's thread, read from any.

    librdkafka reports `_ALL_BROKERS_DOWN` once an outage and only if every broker that it knows of counts as down, and
    records fetched before the outage are still delivered after that report. So an error of the client raises a doubt,
    and only a round trip (`probe`) removes it.
    """

    __slots__ = ("doubted", "problem")

    def __init__(self) -> None:
        self.problem: str | None = "not connected yet"
        self.doubted = False

    def on_error(self, error: KafkaError) -> None:
        """Take an error of the client (librdkafka's `error_cb`)."""
        self.doubted = True
        if error.code() in AWAY:
            self.away(error)

    def away(self, error: KafkaError) -> None:
        """Record that the broker can't be reached."""
        self.problem = f"the broker is away: {words(error)}"
        self.doubted = True

    def reached(self) -> None:
        """Record an answer of the broker."""
        self.problem = None
        self.doubted = False

    def delivered(self) -> None:
        """Record a delivery, which proves nothing once there is a doubt: it may have been fetched before."""
        if not self.doubted:
            self.problem = None

    def probe(self, client: Any, topic: str) -> None:
        """Request a topic's metadata if there is a problem or a doubt; takes at most `PROBE_TIMEOUT`."""
        if self.problem is None and not self.doubted:
            return
        try:
            client.list_topics(topic, timeout=PROBE_TIMEOUT)
        except KafkaException as error:
            self.away(cause(error))
        else:
            self.reached()


__all__ = ["BrokerHealth"]
