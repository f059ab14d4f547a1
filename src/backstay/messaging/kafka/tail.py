"""Reading a topic without a group: every reader sees every record since a moment, and commits nothing."""

import asyncio
import contextlib
import threading
import time
from collections import deque
from datetime import datetime
from typing import Any, Self
from uuid import uuid4

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Place

from backstay.messaging.kafka.faults import cause, words
from backstay.messaging.kafka.health import BrokerHealth
from backstay.messaging.kafka.session import ASK_TIMEOUT, POLL, record_of
from backstay.messaging.kafka.settings import Settings, log
from backstay.messaging.record import Record

BUFFER = 1000  # records read ahead, at most
RETRY = 1.0  # seconds between tries to find the topic, and between looks at a broker that was away


class KafkaTail:
    """A `Tail` on Kafka. Its thread starts with the first record requested, and ends with `aclose()`."""

    def __init__(self, settings: Settings, topic: str, since: datetime) -> None:
        self._settings = settings
        self._topic = topic
        self._since = since
        self._buffer: deque[Record] = deque()
        self._arrived = asyncio.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broker = BrokerHealth()

    def __repr__(self) -> str:
        return f"KafkaTail({self._topic!r}, since={self._since.isoformat()}, {self._settings.bootstrap!r})"

    @property
    def problem(self) -> str | None:
        return self._broker.problem

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        if self._thread is None and not self._stop.is_set():
            self._loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._run, name=f"kafka-tail-{self._topic}", daemon=True)
            self._thread.start()
        while not self._stop.is_set():
            if self._buffer:
                return self._buffer.popleft()
            self._arrived.clear()
            await self._arrived.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self._stop.set()
        self._arrived.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, ASK_TIMEOUT * 2)

    def _run(self) -> None:
        since = self._since
        while not self._stop.is_set():
            client: Any = Consumer({**self._settings.reader(f"tail-{uuid4()}"), "error_cb": self._on_error})
            try:
                if self._begin(client, since):
                    self._read(client)
            except KafkaException as error:
                self._lost(words(cause(error)))
            except Exception as error:  # noqa: BLE001  # a thread that ends would silence the tail for ever
                self._lost(repr(error))
            finally:
                client.close()

    def _lost(self, reason: str) -> None:
        self._broker.problem = reason
        log.warning("tail.lost", extra={"topic": self._topic, "reason": reason})
        self._stop.wait(RETRY)

    def _begin(self, client: Any, since: datetime) -> bool:
        """Find the topic and the offsets; False if the tail was closed meanwhile."""
        while not self._stop.is_set():
            try:
                places = self._start(client, since)
            except KafkaException as error:
                self._broker.away(cause(error))
            else:
                if places:
                    client.assign(places)
                    self._broker.reached()
                    return True
                self._broker.problem = f"topic {self._topic!r} does not exist"
            self._stop.wait(RETRY)
        return False

    def _start(self, client: Any, since: datetime) -> list[Place]:
        found = client.list_topics(timeout=ASK_TIMEOUT / 2).topics.get(self._topic)
        numbers = sorted(found.partitions) if found is not None else []
        if self._settings.flavor == "embedded" or not numbers:
            return [Place(self._topic, number, OFFSET_BEGINNING) for number in numbers]
        # The ends are read first: what arrives between the two questions must not be skipped.
        ends = {n: client.get_watermark_offsets(Place(self._topic, n), timeout=ASK_TIMEOUT)[1] for n in numbers}
        moment = int(since.timestamp() * 1000)
        places: list[Place] = client.offsets_for_times(
            [Place(self._topic, number, moment) for number in numbers], timeout=ASK_TIMEOUT
        )
        for place in places:
            if place.offset < 0:
                place.offset = ends[place.partition]
        return places

    def _read(self, client: Any) -> None:
        probed = time.monotonic()
        while not self._stop.is_set():
            if len(self._buffer) >= BUFFER:
                self._stop.wait(POLL / 5)
                continue
            message = client.poll(POLL)
            if message is not None and message.error() is None:
                self._broker.delivered()
                self._arrive(record_of(message))
            elif message is not None and message.error().fatal():
                raise KafkaException(message.error())
            if (now := time.monotonic()) - probed >= RETRY:
                probed = now
                self._broker.probe(client, self._topic)

    def _arrive(self, record: Record) -> None:
        self._buffer.append(record)
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads on
                self._loop.call_soon_threadsafe(self._arrived.set)

    def _on_error(self, error: KafkaError) -> None:
        self._broker.on_error(error)
