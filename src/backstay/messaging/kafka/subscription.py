"""A group member's life: a thread that opens a session, and another one whenever a session is lost."""

import asyncio
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException

from backstay.messaging.broker import Sink, SubscriptionStatus
from backstay.messaging.kafka.faults import cause, words
from backstay.messaging.kafka.session import Session, SessionLost
from backstay.messaging.kafka.settings import Settings, log
from backstay.messaging.kafka.state import State
from backstay.messaging.record import Partition

SESSION_BACKOFF = 1.0  # seconds between a lost session and the next
CLOSE_TIMEOUT = 20.0  # seconds for leaving the group


class KafkaSubscription:
    """A `Subscription` on Kafka."""

    def __init__(
        self,
        settings: Settings,
        group: str,
        topics: Sequence[str],
        sink: Sink,
        started: frozenset[Partition],
        *,
        watch_end: bool,
    ) -> None:
        self._settings = settings
        self._group = group
        self._topics = tuple(topics)
        self._sink = sink
        self._started = set(started)
        self._watch_end = watch_end
        self._state = State()
        self._thread: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"KafkaSubscription({self._group!r}, {list(self._topics)}, {self._settings.bootstrap!r})"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, args=(loop,), name=f"kafka-{self._group}", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._state.stop.set()
        self._state.room.set()
        if self._thread is None:
            return
        await asyncio.to_thread(self._thread.join, CLOSE_TIMEOUT)
        if self._thread.is_alive():
            log.error("subscription.close-timed-out", extra={"group": self._group, "seconds": CLOSE_TIMEOUT})

    def done(self, partition: Partition, next_offset: int, count: int) -> None:
        self._state.done(partition, next_offset, count)

    def pause(self, partition: Partition) -> None:
        self._state.wish(partition, paused=True)

    def resume(self, partition: Partition) -> None:
        self._state.wish(partition, paused=False)

    def status(self) -> SubscriptionStatus:
        return self._state.status()

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._state.stop.is_set():
            try:
                self._session(loop).run()
            except KafkaException as error:
                self._lost(words(cause(error)))
            except SessionLost as error:
                self._lost(str(error))
            except Exception as error:  # noqa: BLE001  # a thread that ends would stall the group in silence
                log.exception("subscription.session-failed", extra={"group": self._group})
                self._lost(repr(error))

    def _session(self, loop: asyncio.AbstractEventLoop) -> Session:
        return Session(
            self._settings,
            self._group,
            self._topics,
            self._sink,
            self._state,
            loop,
            started=self._started,
            watch_end=self._watch_end,
        )

    def _lost(self, reason: str) -> None:
        self._state.broker.problem = f"the session with the broker was lost: {reason}"
        log.warning("subscription.session-lost", extra={"group": self._group, "reason": reason})
        self._state.stop.wait(SESSION_BACKOFF)
