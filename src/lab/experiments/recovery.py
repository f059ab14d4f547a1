"""`shop healing`: every fault once under a steady stream of orders; what customers see, and how soon all is well again.

Two times are measured from the moment at which a fault ends (or, where there is nothing to end, strikes): until every
order of two seconds is confirmed at once again, and until everything that the fault left behind has been caught up:
no order waits for its payment, no event for its relay, no consumer for an event.
"""

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from backstay.dev.screen import Screen
from backstay.dev.stopping import until_stopped
from backstay.dev.waiting import until
from backstay.dev.web import Web
from lab.faults.catalog import FAULTS, Faults, fault
from lab.faults.injector import Hand
from lab.load.command import stocked, visit
from lab.load.depths import Gauge
from lab.load.scenario import ORDERS_ONLY, Outcome, Scenario
from lab.system import infrastructure, seed
from lab.system.context import in_process
from lab.system.options import APACHE, EMBEDDED, Options
from lab.system.system import System

RATE = 10.0  # orders a second
LASTS = 10.0  # seconds of a fault that has an end
WELL = 2.0  # seconds in which every order has to be confirmed at once
PATIENCE = 90.0  # seconds to heal in
CUSTOMERS = 8
KILLED = ("orders", "payments", "inventory", "notifications", "catalog", "auth", "gateway", "discovery")
COLUMNS = ("fault", "answers while it lasts", "slowest", "orders as ever after", "all caught up after")


@dataclass(frozen=True, slots=True)
class Answer:
    """One checkout: when it was sent and answered (monotonic seconds), and its status, 0 for none."""

    sent: float
    took: float
    status: int


@dataclass(frozen=True, slots=True)
class Healed:
    """The result of one fault. Times are seconds; None: not within `PATIENCE`."""

    name: str
    statuses: Counter[int]
    slowest: float
    orders: float | None
    everything: float | None

    def row(self) -> tuple[str, ...]:
        """For a table."""
        answers = ", ".join(f"{count} × {status or 'none'}" for status, count in sorted(self.statuses.items()))
        return self.name, answers, f"{self.slowest:.1f} s", _seconds(self.orders), _seconds(self.everything)


def _seconds(value: float | None) -> str:
    return f"more than {PATIENCE:g} s" if value is None else f"{value:.1f} s"


def well_from(answers: Sequence[Answer], since: float, now: float) -> float | None:
    """Return the first moment after `since` with `WELL` seconds of orders confirmed immediately; None so far."""
    start = since
    for answer in sorted(answers, key=lambda each: each.sent):
        if answer.sent < since:
            continue
        if answer.sent - start > WELL:
            return start
        if answer.status != 201:
            start = answer.sent + answer.took
    return start if now - start > WELL and any(answer.sent > start for answer in answers) else None


class Stream:
    """Orders at a steady rate, whatever becomes of them, and all their answers."""

    def __init__(self, act: Callable[[], Awaitable[Outcome]]) -> None:
        self._act = act
        self._tasks: set[asyncio.Task[None]] = set()
        self.answers: list[Answer] = []

    async def run(self) -> None:
        """Until it is cancelled; what is under way then is still answered."""
        due = time.monotonic()
        while True:
            task = asyncio.create_task(self._order())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            due += 1 / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def finished(self) -> None:
        """Every order is answered."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def _order(self) -> None:
        sent = time.monotonic()
        outcome = await self._act()
        self.answers.append(Answer(sent, time.monotonic() - sent, outcome.status))


@dataclass(frozen=True, slots=True)
class Ward:
    """One system in which faults are tried."""

    hand: Hand
    faults: Faults
    gauge: Gauge
    act: Callable[[], Awaitable[Outcome]]

    async def lasting(self, name: str, deed: AbstractAsyncContextManager[None]) -> Healed:
        """Return a fault with an end."""

        async def befall() -> None:
            async with deed:
                await asyncio.sleep(LASTS)

        return await self._heal(name, befall)

    async def dying(self, name: str, process: str, number: int) -> Healed:
        """A process dies at once, and the supervisor starts it again."""

        async def befall() -> None:
            await self.hand.end(process, number)

        return await self._heal(name, befall)

    async def _heal(self, name: str, befall: Callable[[], Awaitable[None]]) -> Healed:
        stream = Stream(self.act)
        ordering = asyncio.create_task(stream.run())
        try:
            began = time.monotonic()
            await befall()
            ended = time.monotonic()
            orders = await self._within(lambda: well_from(stream.answers, ended, time.monotonic()))
        finally:
            ordering.cancel()
            await asyncio.gather(ordering, return_exceptions=True)
        await stream.finished()  # one that was slow in coming may tell another story
        orders = orders and (well_from(stream.answers, ended, time.monotonic()) or orders)
        level = await until(self._is_level, timeout=max(0.1, ended + PATIENCE - time.monotonic()), poll=0.1)
        everything = time.monotonic() - ended if level else None
        met = [each for each in stream.answers if each.sent >= began and (orders is None or each.sent < orders)]
        return Healed(
            name,
            Counter(each.status for each in met),
            max((each.took for each in met), default=0.0),
            None if orders is None else orders - ended,
            everything,
        )

    async def _within(self, look: Callable[[], float | None]) -> float | None:
        found: float | None = None

        async def is_found() -> bool:
            nonlocal found
            found = look()
            return found is not None

        await until(is_found, timeout=PATIENCE, poll=0.1)
        return found

    async def _is_level(self) -> bool:
        try:
            return not await self.gauge.unsettled() and (await self.gauge.look()).caught_up
        except (OSError, RuntimeError):
            return False  # the database has just been hit


async def healing(options: Options, screen: Screen, *, only: Sequence[str] = ()) -> int:
    """Try every fault (or those named), print and write the table; status 1 if anything did not heal."""
    kafka = APACHE if options.kafka == EMBEDDED else options.kafka
    home = options.home / "healing"
    own = replace(
        options,
        home=home,
        kafka=kafka,
        smtp_url="null:",
        gateway_port=0,
        discovery_port=0,
        doors=True,
        faults=home / "faults",
        restart_delay=1.0,
    )
    system = System(own, screen)
    if not system.home.is_locked():
        infrastructure.empty(system.home, own.kafka)

    async def live() -> int:
        screen.title("Healing", f"{RATE:g} orders/s; each fault lasts {LASTS:g} s")
        async with system, Web(system.running.gateway) as web, Gauge(system.running.databases) as gauge:
            stage = in_process(system, web)
            await seed.seed(stage)
            skus, visitors = await stocked(stage), await visit(stage, CUSTOMERS)
            scenario = Scenario(system.running.gateways, visitors, skus, mix=ORDERS_ONLY, connections=256)
            faults = Faults(system)
            try:
                healed = await _all(Ward(Hand(system, own.faults), faults, gauge, scenario.act), screen, only)
            finally:
                scenario.close()
                await faults.aclose()
        return _tell(screen, home, healed)

    return await until_stopped(live(), at_once=system.kill, tell=screen.note)


async def _all(ward: Ward, screen: Screen, only: Sequence[str]) -> list[Healed]:
    dying = {f"{name} killed": (name, signal.SIGKILL) for name in (*KILLED, "kafka")}
    dying["PostgreSQL stopped at once"] = ("postgres", signal.SIGQUIT)
    healed = []
    for name in only or [*(each.name for each in FAULTS), *dying]:
        with screen.step(name) as step:
            if name in dying:
                one = await ward.dying(name, *dying[name])
            else:
                kind = fault(name)
                one = await ward.lasting(name, ward.faults.deed(name, kind.on, kind.value))
            step.text = f"{name}: orders as ever after {_seconds(one.orders)}, all after {_seconds(one.everything)}"
        healed.append(one)
    return healed


def _tell(screen: Screen, home: Path, healed: Sequence[Healed]) -> int:
    rows = [each.row() for each in healed]
    table = ["| " + " | ".join(columns) + " |" for columns in (COLUMNS, ("---",) * len(COLUMNS), *rows)]
    (home / "healing.md").write_text("\n".join(table) + "\n")
    screen.title("How soon all is well again", f"written to {home / 'healing.md'}")
    screen.rows(COLUMNS, rows, right=range(2, 5))
    return int(any(each.everything is None for each in healed))
