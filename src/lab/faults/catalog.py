"""Faults to order: what `shop fault` can do to a running system, for how long, and what one should see meanwhile.

They are carried out by the process that runs the system, so each ends by itself, whatever becomes of who ordered it.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from backstay.dev.home import Running
from backstay.messaging import KafkaBroker, Record
from lab.faults.injector import Hand
from lab.system.control import ControlRefused
from lab.system.instances import service_of
from lab.system.kafka import broker_of
from lab.system.system import System
from shop import topology
from shop.clock_offset import VARIABLE

LONGEST = 3600.0  # seconds that a fault may last
FLAP = 3.0  # seconds that a flapping service is there, and not there
FIRST, NEXT = 3.0, 1.0  # seconds to wait for a topic's first record, and for another
AGAIN = 30.0  # seconds back from now whose events are delivered once more


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a fault. `on` and `value` have defaults of the fault's own."""

    fault: str
    seconds: float = 30.0
    on: str = ""
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A kind of fault. `see` is the expected symptom, with `{value}`, `{on}` and `{seconds}` filled in."""

    name: str
    what: str
    see: str
    on: str
    value: float = 0.0
    unit: str = ""


FAULTS = (
    Fault(
        "payments-slow",
        "every charge takes longer",
        "checkouts answer 202 within 3 s instead of 201; the breaker orders → payments opens and later ones answer at "
        "once; afterwards all are confirmed by themselves",
        "payments",
        2.0,
        "seconds",
    ),
    Fault(
        "payments-failing",
        "some charges fail",
        "most checkouts answer 201 after a retry, some 202; with half or more failing the breaker opens; nobody is "
        "charged twice",
        "payments",
        30.0,
        "percent",
    ),
    Fault(
        "payments-dead",
        "payments is stopped",
        "checkouts answer 202; the registry shows no payments; afterwards the reconciler settles them within seconds",
        "payments",
    ),
    Fault(
        "payments-flapping",
        "payments dies and comes back, again and again",
        "201 and 202 in turn; the breaker opens and half-opens; the restarts in `shop status` grow",
        "payments",
        FLAP,
        "seconds",
    ),
    Fault(
        "broker-cut",
        "no connection to Kafka",
        "checkouts go on; outboxes grow, no mails, stock isn't reserved; afterwards everything catches up in order",
        "all",
    ),
    Fault(
        "broker-held",
        "connections to Kafka stay and carry nothing",
        "as with broker-cut, but noticed later: consumers lose their partitions after 6 s and get them back",
        "all",
    ),
    Fault(
        "database-slow",
        "every byte to and from PostgreSQL takes longer",
        "everything takes several times {value} s longer; checkouts that don't fit in 3 s answer 503 or 202; with "
        "1 s and more pools fill up",
        "all",
        0.05,
        "seconds",
    ),
    Fault(
        "consumer-crash",
        "the process dies after the next event it has handled, before Kafka knows",
        "{on} is started again and gets the event a second time: the inbox skips it, nothing happens twice",
        "inventory",
    ),
    Fault(
        "duplicate-delivery",
        "the last events are written to Kafka once more",
        "consumers count duplicates (`/metrics`); orders, stock, mails and figures stay as they are",
        "all",
        AGAIN,
        "seconds back",
    ),
    Fault(
        "clock-offset",
        "a process lives in another time",
        "beyond 30 s {on} refuses tokens (401), auth excepted; events carry wrong times; leases, order, sessions and "
        "blocks stay right, since the database's clock decides them",
        "payments",
        120.0,
        "seconds",
    ),
)


def fault(name: str) -> Fault:
    """Return the fault of that name; ControlRefused names those there are."""
    for candidate in FAULTS:
        if candidate.name == name:
            return candidate
    raise ControlRefused(f"there is no fault {name!r}; there are: {', '.join(each.name for each in FAULTS)}")


class Faults:
    """Carries out orders on the system that this process runs; answers the control verb `fault`."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._hand = Hand(system, system.options.faults)
        self._running: dict[str, asyncio.Task[None]] = {}

    async def order(self, text: str) -> dict[str, str]:
        """Begin a fault; it ends by itself. Returns what it does and what one should see."""
        wanted = self._read(text)
        kind = fault(wanted.fault)
        on, value = wanted.on or kind.on, kind.value if wanted.value is None else wanted.value
        deed = self.deed(kind.name, on, value)
        if kind.name in self._running:
            raise ControlRefused(f"{kind.name} is going on already; it ends by itself")
        begun = asyncio.get_running_loop().create_future()
        self._running[kind.name] = asyncio.create_task(self._carry_out(kind.name, deed, wanted.seconds, begun))
        await begun
        amount = f", {value:g} {kind.unit}" if kind.unit else ""
        return {
            "what": f"{kind.what} ({on}{amount}) for {wanted.seconds:g} s",
            "see": kind.see.format(value=f"{value:g}", on=on, seconds=f"{wanted.seconds:g}"),
        }

    async def aclose(self) -> None:
        """End what is going on."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _read(self, text: str) -> Order:
        try:
            wanted = msgspec.json.decode(text, type=Order)
        except msgspec.DecodeError as error:
            raise ControlRefused(f"not an order: {error}") from error
        if not 0 < wanted.seconds <= LONGEST:
            raise ControlRefused(f"{wanted.seconds:g} s: a fault lasts more than 0 and at most {LONGEST:g} s")
        return wanted

    async def _carry_out(
        self, name: str, deed: AbstractAsyncContextManager[None], seconds: float, begun: "asyncio.Future[None]"
    ) -> None:
        try:
            async with deed:
                if not begun.done():
                    begun.set_result(None)
                self._system.screen.note(f"fault {name} for {seconds:g} s")
                await asyncio.sleep(seconds)
            self._system.screen.note(f"fault {name} is over")
        except (RuntimeError, OSError, TimeoutError) as error:
            if begun.done():
                self._system.screen.note(f"fault {name} ended badly: {error}")
            else:
                begun.set_exception(ControlRefused(str(error)))
        finally:
            del self._running[name]

    def deed(self, name: str, on: str, value: float) -> AbstractAsyncContextManager[None]:
        """Return a fault as long as it is entered; ControlRefused if it can't be."""
        who = self._who(on)
        if who is None and fault(name).on != "all":
            raise ControlRefused(f"{name} needs a service or a process: --on {fault(name).on}")
        everybody = who or []
        charge = "payments.charge.before-intent-commit"
        deeds: Mapping[str, Callable[[], AbstractAsyncContextManager[None]]] = {
            "payments-slow": lambda: self._hand.armed(everybody, f"{charge}=delay:{value:g}"),
            "payments-failing": lambda: self._hand.armed(everybody, f"{charge}=fail:{value:g}"),
            "payments-dead": lambda: self._hand.stopped(everybody),
            "payments-flapping": lambda: self._flapping(everybody, value or FLAP),
            "broker-cut": lambda: _entered(self._hand.shut("kafka", who)),
            "broker-held": lambda: _entered(self._hand.held("kafka", who)),
            "database-slow": lambda: _entered(self._hand.slowed("postgres", value, who)),
            "consumer-crash": lambda: self._hand.armed(everybody, f"{service_of(on)}.consume.after-commit=kill"),
            "duplicate-delivery": lambda: self._again(value or AGAIN),
            "clock-offset": lambda: self._hand.retold(everybody, **{VARIABLE: f"{value:g}"}),
        }
        return deeds[name]()

    def _who(self, on: str) -> list[str] | None:
        """Return the processes meant; None stands for all."""
        if on == "all":
            return None
        if not (found := self._hand.processes(on)):
            raise ControlRefused(f"there is no {on!r} here; there are: {', '.join(self._system.supervisor.names())}")
        return found

    @asynccontextmanager
    async def _flapping(self, names: list[str], seconds: float) -> AsyncIterator[None]:
        async def flap() -> None:
            while True:
                async with self._hand.stopped(names):
                    await asyncio.sleep(seconds)
                await asyncio.sleep(seconds)

        task = asyncio.create_task(flap())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @asynccontextmanager
    async def _again(self, seconds: float) -> AsyncIterator[None]:
        count = await deliver_again(self._system.running, datetime.now(UTC) - timedelta(seconds=seconds))
        self._system.screen.note(f"{count} events written once more")
        yield


async def deliver_again(running: Running, since: datetime) -> int:
    """Write every event since a moment to its topic once more, as it is; returns how many."""
    broker = broker_of(running, client_id="fault")
    try:
        records = [record for topic in topology.TOPICS for record in await _since(broker, topic, since)]
        async with broker.producer() as producer:
            errors = await producer.publish([Record(r.topic, r.key, r.value, r.headers) for r in records])
        if refused := [error for error in errors if error is not None]:
            raise RuntimeError(f"{len(refused)} of {len(records)} events could not be written: {refused[0]}")
    finally:
        await broker.aclose()
    return len(records)


async def _since(broker: KafkaBroker, topic: str, since: datetime) -> list[Record]:
    """Return the records of the topic from that time until now; more may come while it is read."""
    records, until = list[Record](), datetime.now(UTC)
    loop, tail = asyncio.get_running_loop(), broker.tail(topic, since)
    patience = loop.time() + FIRST
    try:
        with contextlib.suppress(TimeoutError):
            while (left := patience - loop.time()) > 0:
                async with asyncio.timeout(left):
                    record = await anext(tail)
                if record.timestamp is None or record.timestamp <= until:
                    records.append(record)
                    patience = loop.time() + NEXT
    finally:
        await tail.aclose()
    return records


@asynccontextmanager
async def _entered(context: contextlib.AbstractContextManager[None]) -> AsyncIterator[None]:
    with context:
        yield


def written(order: Order) -> str:
    """Return an order as it goes to the running system."""
    return json.dumps(msgspec.to_builtins(order))


__all__ = ["FAULTS", "Fault", "Faults", "Order", "deliver_again", "fault", "written"]
