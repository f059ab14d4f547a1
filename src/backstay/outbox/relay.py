"""The relay: brings committed events to the broker, in order per key, and deletes them once they are acknowledged.

At least once: a crash between acknowledgement and deletion repeats what was in flight. Consumers know events by id.
"""

import asyncio
import logging
import time
from types import TracebackType
from typing import Self

from backstay.clock import SYSTEM, Clock
from backstay.errors import BackstayError, ConfigError
from backstay.ids import uuid7
from backstay.messaging import Broker
from backstay.outbox.cycle import Cycle
from backstay.outbox.options import Counters, RelayOptions, RelayStatistics
from backstay.outbox.store import Demanding, Store
from backstay.outbox.strict import Producers, StrictCycle
from backstay.outbox.wire import Encoder

RESTART_PAUSE = (0.1, 3.0)  # seconds before the next life: at first, at most
SOUND_LIFE = 5.0  # seconds; after a life that lasted longer the next one begins soon
_STOP_GRACE = 5.0  # seconds on top of `drain` before a stop is enforced

log = logging.getLogger("backstay.outbox")


class Relay:
    """Entering it starts a supervised task that lives until it is left, whatever database and broker do meanwhile.

    Leaving it publishes what has been committed until then (for at most `drain` seconds), deletes what was
    acknowledged, and gives its shards to the other relays.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker | None = None,
        *,
        name: str,
        source: str,
        options: RelayOptions | None = None,
        clock: Clock = SYSTEM,
        encoder: Encoder | None = None,
    ) -> None:
        self.id = uuid7()
        self.name = name
        self.options = options or RelayOptions()
        self._store, self._broker = store, broker
        self._source, self._clock = source, clock
        self._encoder = encoder
        self._counters = Counters()
        self._cycle = self._new_cycle()
        self._problem = ""
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def lacks_broker(self) -> bool:
        """True if no broker has been given yet."""
        return self._broker is None

    def use_broker(self, broker: Broker) -> None:
        """Set the broker; only before entering."""
        if self._task is not None:
            raise ConfigError(f"relay {self.name!r} is running: its broker can't change any more")
        self._broker = broker

    def nudge(self) -> None:
        """Something was committed: read soon. Cheap, and never needed for correctness."""
        self._cycle.nudge()

    async def __aenter__(self) -> Self:
        if self._broker is None:
            raise ConfigError(f"relay {self.name!r} has no broker: set KAFKA or pass broker=")
        if isinstance(self._store, Demanding):
            await self._store.check()
        self._stopping.clear()
        self._problem = "it has not taken its leases yet"
        self._task = asyncio.create_task(self._supervise(self._broker), name=f"outbox-relay-{self.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        self._cycle.stop()
        try:
            async with asyncio.timeout(self.options.drain + _STOP_GRACE):
                await asyncio.wait({task})
        except TimeoutError:
            log.warning("outbox.stop-enforced", extra={"relay": self.name})
        finally:
            task.cancel()
        await asyncio.wait({task})

    @property
    def problem(self) -> str | None:
        """Why events may not flow; None when all is well."""
        if self._task is None:
            return "it is not running"
        if not self._cycle.established:
            return self._problem
        return next(self._cycle.window.waits.problems(), None) or self._cycle.backlog.problem or None

    def statistics(self) -> RelayStatistics:
        """Return the relay's state and its counts since the start."""
        cycle, counters = self._cycle, self._counters
        return RelayStatistics(
            pending=cycle.backlog.pending,
            oldest_age=cycle.backlog.oldest_age,
            in_flight=cycle.window.in_flight,
            published=counters.published,
            failed=counters.failed,
            refused=counters.refused,
            shards_owned=len(cycle.leases),
            shards_streamed=cycle.backlog.streamed,
            lease_lost=counters.lease_lost,
            epoch_conflicts=counters.epoch_conflicts,
            waiting_topics=len(cycle.window.waits.topics),
            suspected_keys=len(cycle.window.waits.suspects),
            parked_keys=cycle.parked,
            parked=counters.parked,
            reads=counters.reads,
            deletes=counters.deletes,
            restarts=counters.restarts,
            transactions=counters.transactions,
            aborted=counters.aborted,
            fenced=counters.fenced,
            recovered=counters.recovered,
            slot_retained_bytes=counters.slot_retained_bytes,
            commit_to_ack=counters.commit_to_ack.statistics(),
            problem=self.problem,
        )

    def __repr__(self) -> str:
        return f"Relay({self.name!r}, source={self._source!r}, lease={self.options.lease:g} s)"

    async def _supervise(self, broker: Broker) -> None:
        """Live one life after the other until stopped."""
        pause = 0.0
        while not self._stopping.is_set():
            self._cycle, born = self._new_cycle(), time.monotonic()
            try:
                await self._live(broker, self._cycle)
            except Exception as error:
                self._problem = _describe(error)
                log.warning(
                    "outbox.relay-restarts", extra={"relay": self.name, "reason": self._problem}, exc_info=error
                )
                self._counters.restarts += 1
                lived = time.monotonic() - born
                pause = RESTART_PAUSE[0] if lived > SOUND_LIFE or not pause else min(pause * 2, RESTART_PAUSE[1])
                self._cycle = self._new_cycle()
                await self._rest(pause)

    async def _live(self, broker: Broker, cycle: Cycle) -> None:
        maker = Producers(broker) if self.options.strict else broker.producer()
        async with maker as producer, self._store.open() as session:
            try:
                await cycle.run(session, producer)
            except BaseException:
                # At once: nothing of this life may be sent any more, its leases are no longer looked after.
                producer.purge()
                raise

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    def _new_cycle(self) -> Cycle:
        kind = StrictCycle if self.options.strict else Cycle
        return kind(
            self.id,
            self.name,
            source=self._source,
            options=self.options,
            counters=self._counters,
            clock=self._clock,
            encoder=self._encoder,
        )


def _describe(error: BaseException) -> str:
    """Return the first real cause inside groups of causes."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, BackstayError) else f"{type(error).__name__}: {error}"
