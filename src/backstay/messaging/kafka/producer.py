"""An idempotent producer: one poll thread, one future per batch, counted down where the broker's answers arrive.

A client that met a fatal error, or was purged, is replaced; what it had not acknowledged ends as `producer`.
"""

import asyncio
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import Producer as Client

from backstay.messaging.broker import PUBLISH_TIMEOUT
from backstay.messaging.errors import PublishError
from backstay.messaging.kafka.faults import cause, publish_error, words
from backstay.messaging.kafka.settings import log
from backstay.messaging.record import Record

POLL = 0.1  # seconds the poll thread waits for answers at a time
PURGE_TIMEOUT = 5.0  # seconds a retired client gets to report what it gave up
ROOM_WAIT = 0.005  # seconds between tries while the client's queue is full
WARM_TIMEOUT = 1.0  # seconds a new client tries to meet its broker before there is anything to send
SLICE = 250  # records handed to the client before others on the event loop get a turn


class KafkaProducer:
    """A `Producer` on Kafka.

    timeout: seconds until a batch that is not acknowledged is given up and the client replaced.
    """

    def __init__(self, config: Mapping[str, Any], *, timeout: float = PUBLISH_TIMEOUT) -> None:
        self._config = config
        self._timeout = timeout
        self._order = asyncio.Lock()
        self._core: _Core | None = None
        self._retired: set[_Core] = set()

    def __repr__(self) -> str:
        return f"KafkaProducer({self._config['bootstrap.servers']!r}, timeout={self._timeout})"

    async def __aenter__(self) -> Self:
        self._current()  # connects: the first event doesn't wait for that, nor for the producer's id
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.purge()
        for core in list(self._retired):
            await asyncio.to_thread(core.join)

    async def publish(self, records: Sequence[Record]) -> list[PublishError | None]:
        if not records:
            return []
        async with self._order:
            core = self._current()
            batch = _Batch(len(records), core)
            await self._send(core, batch, records)
        results = await self._settled(core, batch)
        if any(result is not None and result.kind == "producer" for result in results):
            self._replace(core)
        return results

    def purge(self) -> None:
        if self._core is not None:
            self._replace(self._core)

    def _current(self) -> "_Core":
        if self._core is not None and self._core.is_broken():
            self._replace(self._core)
        if self._core is None:
            self._core = _Core(self._config)
        return self._core

    def _replace(self, core: "_Core") -> None:
        if self._core is core:
            self._core = None
        self._retired = {old for old in self._retired if old.is_alive()} | {core}
        core.retire()

    async def _send(self, core: "_Core", batch: "_Batch", records: Sequence[Record]) -> None:
        """Hand all records to the client, in order; the batch knows those that it refused."""
        sent = 0
        while sent < len(records):
            until = min(sent + SLICE, len(records))
            taken = core.produce_many(records, sent, until, batch.delivered)
            sent += taken
            if sent < until:
                break
            if sent < len(records):
                await asyncio.sleep(0)
        if sent < len(records):
            sent += await self._send_carefully(core, batch, records, sent)
        batch.close(sent)

    async def _send_carefully(self, core: "_Core", batch: "_Batch", records: Sequence[Record], first: int) -> int:
        """Produce from `first` on one by one, since the client refused that one just now; return how many."""
        deadline = time.monotonic() + self._timeout
        held: set[tuple[str, bytes | None]] = set()
        sent = 0
        for index in range(first, len(records)):
            record = records[index]
            if index % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if held and (record.topic, record.key) in held:
                batch.refuse(index, PublishError("retriable", "held back: an earlier record of its key was refused"))
                continue
            refused = await self._hand_over(core, record, partial(batch.delivered, index), deadline)
            if refused is None:
                sent += 1
                continue
            batch.refuse(index, refused)
            if record.key is not None:
                held.add((record.topic, record.key))
        return sent

    async def _hand_over(self, core: "_Core", record: Record, on_delivery: Any, deadline: float) -> PublishError | None:
        while True:
            try:
                core.produce(record, on_delivery)
            except BufferError:
                if time.monotonic() > deadline or core.is_broken():
                    return PublishError("retriable", "the producer's queue stays full: the broker takes nothing")
                await asyncio.sleep(ROOM_WAIT)
            except KafkaException as error:
                return publish_error(cause(error))
            except (TypeError, ValueError) as error:
                return PublishError("record", f"the record cannot be sent: {error}")
            else:
                return None

    async def _settled(self, core: "_Core", batch: "_Batch") -> list[PublishError | None]:
        try:
            async with asyncio.timeout(self._timeout):
                return await asyncio.shield(batch.future)
        except TimeoutError:
            log.warning("producer.batch-timed-out", extra={"records": len(batch.results), "seconds": self._timeout})
        self._replace(core)
        try:
            async with asyncio.timeout(PURGE_TIMEOUT):
                return await asyncio.shield(batch.future)
        except TimeoutError:
            return [PublishError("producer", "given up without an answer")] * len(batch.results)


class _Batch:
    """Results of one batch. Answers are counted on the poll thread, refusals are noted on the event loop."""

    __slots__ = ("_answered", "_core", "_expected", "_loop", "future", "results")

    def __init__(self, size: int, core: "_Core") -> None:
        self._core = core
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[PublishError | None]] = self._loop.create_future()
        self.results: list[PublishError | None] = [None] * size
        self._answered = 0
        self._expected = -1  # unknown while records are still being handed over

    def delivered(self, index: int, error: KafkaError | None, _message: Message) -> None:
        """The client's answer for one record, on the poll thread."""
        if error is not None:
            self.results[index] = self._core.meaning(error)
        self._answered += 1
        if self._answered == self._expected:
            self._finish()

    def refuse(self, index: int, error: PublishError) -> None:
        """The client did not even take this record."""
        self.results[index] = error

    def close(self, expected: int) -> None:
        """So many answers will come, some may be here already."""
        self._expected = expected
        if self._answered == expected:
            self._finish()

    def _finish(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._resolve)

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(self.results)


def _gone(*_: object, **__: object) -> None:
    raise KafkaException(KafkaError(KafkaError._PURGE_QUEUE))


def _weakly(method: Callable[[KafkaError], None]) -> Callable[[KafkaError], None]:
    """Return the method bound by a weak reference to its object."""
    found = weakref.WeakMethod(method)

    def call(error: KafkaError) -> None:
        if (bound := found()) is not None:
            bound(error)

    return call


class _Core:
    """One librdkafka client and the thread that polls it, until it is retired."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        # The client keeps its callbacks. A bound one would be a circle: threads and sockets of a retired client would
        # live on until the garbage collector comes by, in a calm program hardly ever.
        self._client: Any = Client({**config, "error_cb": _weakly(self._on_error)})
        self._produce: Callable[..., None] = self._client.produce
        self._retire = threading.Event()
        self._fatal: KafkaError | None = None
        self._thread = threading.Thread(target=self._run, name="kafka-producer", daemon=True)
        self._thread.start()

    @property
    def client(self) -> Any:
        """The library's own producer."""
        return self._client

    def is_broken(self) -> bool:
        return self._fatal is not None or self._retire.is_set() or not self._thread.is_alive()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def meaning(self, error: KafkaError) -> PublishError:
        """Return the meaning of an error for its record.

        When the broker refuses a batch for good the client stops rather than let its successors out, and doesn't say
        which records the batch had: all that was on its way is refused, and whoever asked offers it one by one.
        """
        fatal = self._fatal
        if fatal is not None and (fatal.code() == KafkaError._GAPLESS_GUARANTEE or "gap-less" in fatal.str()):
            return PublishError("record", words(fatal))
        return publish_error(error)

    def produce_many(self, records: Sequence[Record], first: int, until: int, delivered: Any) -> int:
        """Hand over records until the client doesn't just take one; returns how many it took."""
        produce = self._produce
        for index in range(first, until):
            record = records[index]
            if record.partition is not None or record.timestamp is not None:
                return index - first
            try:
                produce(
                    record.topic,
                    record.value,
                    record.key,
                    on_delivery=partial(delivered, index),
                    headers=list(record.headers),
                )
            except (BufferError, KafkaException, TypeError, ValueError):
                return index - first  # whoever tries it again finds out what is wrong
        return until - first

    def produce(self, record: Record, on_delivery: Any) -> None:
        options: dict[str, Any] = {}
        if record.partition is not None:
            options["partition"] = record.partition
        if record.timestamp is not None:
            options["timestamp"] = int(record.timestamp.timestamp() * 1000)
        self._produce(
            record.topic,
            record.value,
            record.key,
            on_delivery=on_delivery,
            headers=list(record.headers),
            **options,
        )

    def retire(self) -> None:
        """Give up all that is not acknowledged; the thread reports it and ends."""
        self._retire.set()

    def join(self) -> None:
        """Wait for the thread and destroy the client; no call is allowed afterwards."""
        self._thread.join(PURGE_TIMEOUT + 1.0)
        if not self._thread.is_alive():
            self._produce = _gone
            self._client = None

    def _run(self) -> None:
        with contextlib.suppress(KafkaException):  # a broker that is away now is met by the first batch
            self._client.list_topics(timeout=WARM_TIMEOUT)
        while not self._retire.is_set():
            self._poll(POLL)
        deadline = time.monotonic() + PURGE_TIMEOUT
        while time.monotonic() < deadline:
            self._client.purge(blocking=False)
            self._poll(POLL / 10)
            if not len(self._client):
                return

    def _poll(self, seconds: float) -> None:
        """Serve answers; a fatal error comes out here too."""
        try:
            self._client.poll(seconds)
        except KafkaException as error:
            if cause(error).fatal():
                self._fatal = cause(error)
                self._retire.set()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = self._fatal or error
            self._retire.set()
        log.warning("producer.error", extra={"error": error.str(), "code": error.name()})
