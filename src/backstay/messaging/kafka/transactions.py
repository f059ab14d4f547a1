"""A transactional producer: a batch becomes visible as a whole or not at all; an older producer of its id is fenced.

With each transaction a mark is committed, as the metadata of an offset of the group that has the id's name. Whoever
opens the id next reads it and knows how the last transaction of its predecessor ended.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from backstay.messaging.broker import PUBLISH_TIMEOUT
from backstay.messaging.errors import Fenced, PublishError, TransactionLost
from backstay.messaging.kafka.faults import cause, words
from backstay.messaging.kafka.producer import PURGE_TIMEOUT, KafkaProducer, _Batch
from backstay.messaging.kafka.settings import Settings
from backstay.messaging.record import Record

LOOK = 0.05  # seconds between looks whether a record has failed while others are on their way
STEP = 2.0  # seconds one call of the client may take before it is asked again
RETRY_WAIT = 0.05  # seconds between tries of what may be tried again

_FENCED = {KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED}

T = TypeVar("T")


class _AbortNeededError(Exception):
    """The transaction can only be aborted."""


class KafkaTransactions:
    """A `TransactionalProducer` on Kafka. timeout: seconds until a transaction that doesn't end is given up."""

    def __init__(self, ident: str, settings: Settings, *, timeout: float = PUBLISH_TIMEOUT) -> None:
        self.ident = ident
        self._settings = settings
        self._timeout = timeout
        self._producer = KafkaProducer(settings.transactional(ident), timeout=timeout)
        self._core = self._producer._current()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="kafka-transactions")
        self._membership: Any = None
        self._closed = False

    def __repr__(self) -> str:
        return f"KafkaTransactions({self.ident!r}, {self._settings.bootstrap!r})"

    async def __aenter__(self) -> Self:
        try:
            await self._call(self._core.client.init_transactions)
            self._membership = await self._on_thread(self._name_group)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.purge()
        await self._producer.__aexit__(kind, error, trace)
        self._thread.shutdown(wait=False)

    async def marks(self) -> frozenset[str]:
        """As in `TransactionalProducer`."""
        return await self._on_thread(self._read_marks)

    async def publish(self, records: Sequence[Record], mark: str) -> list[PublishError | None]:
        """As in `TransactionalProducer`."""
        batch = _Batch(len(records), self._core)
        place = TopicPartition(records[0].topic, 0, int(time.time()), mark)
        try:
            try:
                await self._transact(batch, records, place)
            except _AbortNeededError as reason:
                await self._call(self._core.client.abort_transaction)
                aborted = PublishError("producer", f"the transaction was aborted: {reason}")
                return [result or aborted for result in await self._answers(batch)]
            if any(results := await self._answers(batch)):
                raise TransactionLost(f"{self.ident}: committed, although records failed: {results}")
            return results
        except BaseException:
            self.purge()
            raise

    def purge(self) -> None:
        """As in `TransactionalProducer`."""
        self._closed = True
        self._producer.purge()

    async def _transact(self, batch: _Batch, records: Sequence[Record], place: TopicPartition) -> None:
        client = self._core.client
        await self._call(client.begin_transaction)
        await self._producer._send(self._core, batch, records)
        await self._settled(batch)
        await self._call(client.send_offsets_to_transaction, [place], self._membership)
        await self._call(client.commit_transaction)

    async def _settled(self, batch: _Batch) -> None:
        """Wait until every record has arrived; one that failed is enough to end the transaction."""
        deadline = time.monotonic() + self._timeout
        while True:
            await asyncio.wait({batch.future}, timeout=LOOK)
            if refused := next((one for one in batch.results if one is not None), None):
                raise _AbortNeededError(str(refused))
            if batch.future.done():
                return
            if time.monotonic() > deadline or self._core.is_broken():
                raise TransactionLost(f"{self.ident}: its records were not acknowledged")

    async def _answers(self, batch: _Batch) -> list[PublishError | None]:
        try:
            async with asyncio.timeout(PURGE_TIMEOUT):
                return await asyncio.shield(batch.future)
        except TimeoutError:
            raise TransactionLost(f"{self.ident}: the client did not say how its records ended") from None

    def _name_group(self) -> Any:
        """Return the group in whose name offsets are committed: named as this id, without members."""
        consumer = Consumer(self._settings.reader(self.ident))
        try:
            return consumer.consumer_group_metadata()
        finally:
            consumer.close()

    def _read_marks(self) -> frozenset[str]:
        client = AdminClient(self._settings.admin())
        asked, deadline = [ConsumerGroupTopicPartitions(self.ident)], time.monotonic() + self._timeout
        while True:
            answer = client.list_consumer_group_offsets(asked, require_stable=True, request_timeout=STEP)
            try:
                found = answer[self.ident].result(timeout=STEP * 2)
            except KafkaException as error:
                if cause(error).code() == KafkaError.GROUP_ID_NOT_FOUND:
                    return frozenset()
                self._give_up_or_wait(cause(error), "its marks can't be read", deadline)
            else:
                return frozenset(one.metadata for one in found.topic_partitions or () if one.metadata)

    async def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        await self._on_thread(lambda: self._insist(function, arguments))

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _insist(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        """Call, and call again what may be called again."""
        deadline = time.monotonic() + self._timeout
        if self._closed:
            raise TransactionLost(f"{self.ident}: its client has been given up")
        timed = () if function.__name__ == "begin_transaction" else (STEP,)
        while True:
            try:
                function(*arguments, *timed)
            except KafkaException as exception:
                error = cause(exception)
                if error.code() in _FENCED:
                    raise Fenced(f"{self.ident}: {words(error)}") from exception
                if error.txn_requires_abort():
                    raise _AbortNeededError(words(error)) from exception
                self._give_up_or_wait(error, function.__name__, deadline)
            else:
                return

    def _give_up_or_wait(self, error: KafkaError, what: str, deadline: float) -> None:
        again = error.retriable() or error.code() == KafkaError._TIMED_OUT
        if not again or self._closed or time.monotonic() > deadline:
            raise TransactionLost(f"{self.ident}: {what}: {words(error)}")
        time.sleep(RETRY_WAIT)
