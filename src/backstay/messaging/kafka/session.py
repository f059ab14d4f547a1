"""One client of a consumer group, from its first connection to its end. All of it runs on the poll thread.

Deliveries and revocations are posted to the event loop by this one thread, so their order there is their order here:
nothing of a partition arrives after the loop was asked to let go of it.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from backstay.messaging.broker import BATCH, Sink
from backstay.messaging.kafka.faults import cause, words
from backstay.messaging.kafka.settings import Settings, log
from backstay.messaging.kafka.state import State
from backstay.messaging.record import Partition, Record

POLL = 0.1  # seconds to wait for a first record
OUTSTANDING = 8 * BATCH  # records the event loop may hold before polling stops
FULL_PATIENCE = 0.5  # seconds without room before the partitions are paused, so that rebalances are served
COMMIT_EVERY = 0.1  # seconds
WATCH_EVERY = 1.0  # seconds between looks at lag and at a broker that was away
ASK_TIMEOUT = 5.0  # seconds for one question to the broker
REVOKE_TIMEOUT = 60.0  # seconds for batches in flight when partitions are taken away
QUIET = 1.0  # seconds without a record after which an embedded broker's partitions count as read to their end


class SessionLost(Exception):
    """The client can never work again; a new one must take its place."""


class Session:
    """One client's life."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: Sequence[str],
        sink: Sink,
        state: State,
        loop: asyncio.AbstractEventLoop,
        *,
        started: set[Partition],
        watch_end: bool,
    ) -> None:
        self._embedded = settings.flavor == "embedded"
        self._config = settings.member(group, watch_end=watch_end and not self._embedded)
        self._group = group
        self._topics = list(topics)
        self._sink = sink
        self._state = state
        self._loop = loop
        self._started = started
        self._watch_end = watch_end
        self._counts: dict[str, int] = {}
        self._ends: dict[Partition, int] = {}  # partitions whose end is still to be reached
        self._applied: set[Partition] = set()  # pauses the client knows of
        self._positions: dict[Partition, int] = {}
        self._full_since: float | None = None
        self._held = False
        self._fatal: KafkaError | None = None
        self._unassigned: KafkaError | None = None  # why nobody could say where partitions given to us stand
        self._leaving = False
        self._last_commit = self._last_watch = self._last_record = time.monotonic()
        self._client: Any = None

    def run(self) -> None:
        """Work until the subscription stops; raises KafkaException or SessionLost when a new client is needed."""
        self._client = Consumer({**self._config, "error_cb": self._on_error, "on_commit": self._on_commit})
        try:
            if self._await_topics():
                self._client.subscribe(
                    self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
                )
                while not self._state.stop.is_set():
                    self._turn()
        finally:
            self._close()

    def _await_topics(self) -> bool:
        """Wait for the broker and the topics; False if the subscription stopped meanwhile."""
        while not self._state.stop.is_set():
            try:
                found = self._client.list_topics(timeout=ASK_TIMEOUT / 2).topics
            except KafkaException as error:
                self._state.broker.away(cause(error))
            else:
                self._state.broker.reached()
                missing = [topic for topic in self._topics if topic not in found or not found[topic].partitions]
                if missing:
                    self._state.broker.problem = f"topics do not exist: {', '.join(missing)}"
                else:
                    self._counts = {topic: len(found[topic].partitions) for topic in self._topics}
                    return True
            self._state.stop.wait(WATCH_EVERY / 2)
        return False

    def _turn(self) -> None:
        self._apply_pauses()
        if self._state.outstanding() < OUTSTANDING:
            self._take_more()
        else:
            self._wait_for_room()
        now = time.monotonic()
        if now - self._last_commit >= COMMIT_EVERY:
            self._last_commit = now
            self._commit_marks()
        if now - self._last_watch >= WATCH_EVERY:
            self._last_watch = now
            self._watch()
        if (error := self._fatal or self._unassigned) is not None:
            raise SessionLost(words(error))

    def _take_more(self) -> None:
        if self._held:
            self._held = False
            self._client.resume(_places(set(self._state.assigned) - self._applied))
        self._full_since = None
        first = self._client.poll(POLL)
        if first is not None:
            self._take([first, *self._client.consume(BATCH - 1, 0)])
        if self._embedded and self._ends and time.monotonic() - self._last_record >= QUIET:
            for partition in list(self._ends):
                self._reached(partition)

    def _wait_for_room(self) -> None:
        now = time.monotonic()
        self._full_since = self._full_since or now
        if not self._held and now - self._full_since >= FULL_PATIENCE:
            self._held = True
            self._client.pause(_places(self._state.assigned))
        if self._held:
            self._take(self._client.consume(1, 0))
        self._state.room.wait(POLL / 5)
        self._state.room.clear()

    def _take(self, messages: Sequence[Message]) -> None:
        """Sort what came by partition and hand it over, with one wake-up of the event loop."""
        batches: dict[Partition, list[Record]] = {}
        ended: list[Partition] = []
        for message in messages:
            if (error := message.error()) is not None:
                self._message_error(message, error, ended)
                continue
            record = record_of(message)
            batches.setdefault(Partition(record.topic, message.partition() or 0), []).append(record)
        if batches:
            self._deliver(batches)
        for partition in ended:
            self._reached(partition)

    def _deliver(self, batches: dict[Partition, list[Record]]) -> None:
        self._state.broker.delivered()
        self._last_record = time.monotonic()
        delivered = self._state.delivered
        for partition, records in batches.items():
            delivered[partition] = delivered.get(partition, 0) + len(records)
        self._post(self._hand_over, batches)
        for partition, records in batches.items():
            self._positions[partition] = (records[-1].offset or 0) + 1
            if not self._embedded and self._positions[partition] >= self._ends.get(partition, 1 << 63):
                self._reached(partition)

    def _hand_over(self, batches: dict[Partition, list[Record]]) -> None:
        for partition, records in batches.items():
            self._sink.deliver(partition, records)

    def _reached(self, partition: Partition) -> None:
        if self._ends.pop(partition, None) is not None:
            self._post(self._sink.reached_end, partition)

    def _message_error(self, message: Message, error: KafkaError, ended: list[Partition]) -> None:
        topic, number = message.topic(), message.partition()
        if error.code() == KafkaError._PARTITION_EOF:
            ended.append(Partition(topic or "", number or 0))
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._offset_missing(Partition(topic or "", number or 0), words(error))
        elif error.fatal() or error.code() == KafkaError._FATAL:
            self._fatal = error
        else:
            if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.TOPIC_AUTHORIZATION_FAILED}:
                self._state.faults[topic or "?"] = f"topic {topic!r}: {words(error)}"
            log.warning("subscription.error", extra={"group": self._group, "topic": topic, "error": words(error)})

    def _offset_missing(self, partition: Partition, why: str) -> None:
        self._state.faults[str(partition)] = (
            f"group {self._group!r} has no valid offset in {partition}: {why}; "
            "records may be gone: check the topic, then set the group's offset by hand"
        )
        log.error("subscription.offset-missing", extra={"group": self._group, "partition": str(partition)})

    # -- partitions come and go ------------------------------------------------------------------------------------

    def _on_assign(self, client: Any, places: list[Place]) -> None:
        self._client = client  # the library may call back before the constructor's result is ours
        if self._leaving:
            self._decline(client)
            return
        try:
            found = client.committed(places, timeout=ASK_TIMEOUT) if places else []
        except KafkaException as error:
            self._unassigned = cause(error)
            self._decline(client)
            return
        for place in found:
            partition = Partition(place.topic, place.partition)
            if place.offset >= 0:
                self._started.add(partition)
            elif partition not in self._started:
                place.offset = OFFSET_BEGINNING
            else:
                place.offset = OFFSET_INVALID
                self._offset_missing(partition, "it was lost after the group's first start")
        (client.assign if self._embedded else client.incremental_assign)(found)
        if found:
            client.resume(found)  # the library remembers pauses of an assignment that is over
        self._now_ours(found)

    def _decline(self, client: Any) -> None:
        """Take nothing. An assignment has to be answered: unanswered, the client can neither go on nor be closed."""
        (client.assign if self._embedded else client.incremental_assign)([])

    def _now_ours(self, places: list[Place]) -> None:
        partitions = [Partition(place.topic, place.partition) for place in places]
        self._state.assigned = tuple(sorted({*self._state.assigned, *partitions}))
        self._state.delivered.update(dict.fromkeys(partitions, 0))
        self._state.broker.reached()
        for topic in {partition.topic for partition in partitions}:
            self._state.faults.pop(topic, None)
        self._held = False
        self._last_record = time.monotonic()
        self._post(self._sink.assigned, partitions, self._counts)
        if self._watch_end:
            for place in places:
                self._watch_end_of(place)

    def _watch_end_of(self, place: Place) -> None:
        partition = Partition(place.topic, place.partition)
        self._ends[partition] = 0
        if self._embedded:
            return
        low, high = self._client.get_watermark_offsets(Place(*partition), timeout=ASK_TIMEOUT)
        self._ends[partition] = high
        if (place.offset if place.offset >= 0 else low) >= high:
            self._reached(partition)

    def _on_revoke(self, client: Any, places: list[Place]) -> None:
        self._let_go(client, places, commit=True)

    def _on_lost(self, client: Any, places: list[Place]) -> None:
        log.warning("subscription.partitions-lost", extra={"group": self._group, "partitions": len(places)})
        self._let_go(client, places, commit=False)

    def _let_go(self, client: Any, places: list[Place], *, commit: bool) -> None:
        partitions = [Partition(place.topic, place.partition) for place in places]
        self._wait_until_released(partitions)
        if commit:
            self._commit_last(partitions)
        self._state.forget(partitions)
        for partition in partitions:
            self._ends.pop(partition, None)
            self._positions.pop(partition, None)
        self._applied -= set(partitions)
        if self._embedded:
            client.unassign()
        else:
            client.incremental_unassign(places)

    def _wait_until_released(self, partitions: list[Partition]) -> None:
        if not partitions or self._loop.is_closed():
            return
        released = asyncio.run_coroutine_threadsafe(self._sink.revoked(partitions), self._loop)
        try:
            released.result(REVOKE_TIMEOUT)
        except Exception:  # noqa: BLE001  # whatever it was, the partitions have to go
            log.exception("subscription.release-failed", extra={"group": self._group})

    # -- offsets and health ----------------------------------------------------------------------------------------

    def _commit_marks(self) -> None:
        """Commit what is done, without waiting for the answer: a broker that dies meanwhile gives none for a minute."""
        marks = self._state.take_marks()
        if not marks:
            return
        try:
            self._client.commit(offsets=_places_at(marks), asynchronous=True)
        except KafkaException as error:
            self._commit_failed(marks, cause(error))

    def _commit_last(self, partitions: list[Partition]) -> None:
        """Commit what is done in partitions that are taken away; their next owner begins there."""
        if self._state.broker.problem is not None:
            return
        marks = self._state.take_marks(partitions)
        if not marks:
            return
        try:
            self._client.commit(offsets=_places_at(marks), asynchronous=False)
        except KafkaException as error:
            self._commit_failed(marks, cause(error))
        else:
            self._committed(marks)

    def _on_commit(self, error: KafkaError | None, places: list[Place]) -> None:
        marks = {Partition(p.topic, p.partition): p.offset for p in places if p.offset >= 0}
        if error is not None:
            self._commit_failed(marks, error)
        else:
            self._committed([Partition(p.topic, p.partition) for p in places if p.error is None])

    def _committed(self, partitions: Iterable[Partition]) -> None:
        """The group has offsets in these partitions now, so that it has started there."""
        fresh = sorted(set(partitions) - self._started)
        if fresh:
            self._started.update(fresh)
            self._post(self._sink.started, fresh)

    def _commit_failed(self, marks: dict[Partition, int], error: KafkaError) -> None:
        """Nothing is lost: the marks are tried again, and what is delivered twice the inbox knows."""
        log.warning("subscription.commit-failed", extra={"group": self._group, "error": words(error)})
        self._state.put_back(marks)

    def _watch(self) -> None:
        self._state.broker.probe(self._client, self._topics[0])
        self._state.lag = None if self._embedded else self._lag()

    def _lag(self) -> int:
        lag = 0
        for partition in self._state.assigned:
            _, high = self._client.get_watermark_offsets(Place(*partition), cached=True) or (0, -1)
            position = self._positions.get(partition)
            if high >= 0 and position is not None:
                lag += max(0, high - position)
        return lag + self._state.outstanding()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        else:
            self._state.broker.on_error(error)
        log.info("subscription.client-error", extra={"group": self._group, "error": words(error)})

    def _apply_pauses(self) -> None:
        wished = self._state.paused & set(self._state.assigned)
        if wished == self._applied:
            return
        if pause := wished - self._applied:
            self._client.pause(_places(pause))
        if resume := self._applied - wished:
            self._client.resume(_places(resume))
        self._applied = set(wished)

    def _post(self, call: Callable[..., object], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is there to hear it
            self._loop.call_soon_threadsafe(call, *args)

    def _close(self) -> None:
        """Leave the group (revoking what is held); whatever a broken client kept is let go of in any case."""
        self._leaving = True
        try:
            self._client.close()
        except KafkaException as error:
            log.warning("subscription.close-failed", extra={"group": self._group, "error": words(cause(error))})
        left = list(self._state.assigned)
        self._wait_until_released(left)
        self._state.forget(left)


def record_of(message: Message) -> Record:
    """Return the message as a record."""
    kind, stamp = message.timestamp()
    return Record(
        message.topic() or "",
        message.key(),
        message.value(),
        tuple(message.headers() or ()),  # type: ignore[arg-type]  # what was read is a list of pairs
        message.partition(),
        message.offset(),
        datetime.fromtimestamp(stamp / 1000, UTC) if kind else None,
    )


def _places(partitions: Sequence[Partition] | set[Partition]) -> list[Place]:
    return [Place(topic, number) for topic, number in partitions]


def _places_at(marks: dict[Partition, int]) -> list[Place]:
    return [Place(topic, number, offset) for (topic, number), offset in marks.items()]
