"""`shop replay --chaos`: a real shop's orders in a storm, the same reconciliation, then I1 to I8 one by one."""

import asyncio
import itertools
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from backstay.db import Database, Queries
from backstay.dev import registry
from backstay.dev.screen import Screen
from backstay.dev.stopping import until_stopped
from backstay.dev.waiting import until
from backstay.dev.web import HttpError, Reply, Web
from lab.checks.invariants import Attempt, Evidence, judge
from lab.checks.kafka_log import Entry, read_log
from lab.checks.order_trace import story
from lab.faults.injector import Hand
from lab.faults.run import Storm, targets
from lab.faults.schedule import Accident, schedule
from lab.replay.command import Replay
from lab.replay.place import Placed, Placing
from lab.replay.reconcile import Check
from lab.system import infrastructure
from lab.system.context import Stage, in_process
from lab.system.dataset import History
from lab.system.options import APACHE, EMBEDDED, Options
from lab.system.system import System
from shop import topology

sql = Queries.load(__package__)

SECONDS_PER_ACCIDENT = 5.0
SHORTEST = 300.0  # seconds over which orders are paced
CONCURRENCY = 256  # orders waiting for an answer
CALM_TIMEOUT = 90.0  # seconds until everybody must be back after the storm
RESTART_DELAY = 1.0  # seconds at most before the dead are started again
PULSE = 0.1  # seconds between two looks whether this process gets its CPU
STALL = 0.3  # seconds that it may have to wait for it
STORIES = 5  # orders whose whole story is told


@dataclass(frozen=True, slots=True)
class Chaos:
    """Options of a fault run: seed, number of faults, and seconds over which orders are paced (0: by kills)."""

    seed: int
    kills: int
    seconds: float = 0.0

    @property
    def duration(self) -> float:
        """Seconds that it takes."""
        return self.seconds or max(SHORTEST, self.kills * SECONDS_PER_ACCIDENT)


class Witness(Web):
    """A client of several gateways in turn that remembers how each try of a checkout went."""

    def __init__(self, gateways: Sequence[str], *, max_connections: int) -> None:
        super().__init__(gateways[0], max_connections=max_connections)
        self.attempts: list[Attempt] = []
        addresses = [urlsplit(gateway) for gateway in gateways]
        self._gateways = itertools.cycle([(each.hostname or "", each.port or 80) for each in addresses])

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Reply:
        """As `Web.call`; a repeat goes to the next gateway."""
        at, status = time.time(), None
        self._host, self._port = next(self._gateways)
        try:
            reply = await super().call(method, path, body, **more)
            status = reply.status
            return reply
        except (HttpError, OSError):
            raise
        finally:
            if method == "POST" and path == "/api/v1/orders":
                self.attempts.append(Attempt(at, time.time() - at, status))


async def replay_in_a_storm(history: History, options: Options, screen: Screen, *, enough: bool, chaos: Chaos) -> int:
    """Returns the exit status: 0 when everything adds up and I1 to I8 hold."""
    own = replace(
        options,
        home=options.home / "storm",
        kafka=APACHE if options.kafka == EMBEDDED else options.kafka,
        gateway_port=0,
        discovery_port=0,
        doors=True,
        restart_delay=RESTART_DELAY,
    )
    system = System(own, screen)
    if not system.home.is_locked():
        infrastructure.empty(system.home, own.kafka)

    async def live() -> int:
        screen.title("Replay in a storm", f"seed {chaos.seed}, {chaos.kills} accidents, home {own.home}")
        async with system, Witness(system.running.gateways, max_connections=CONCURRENCY) as web:
            work = StormyReplay(history, system, web, chaos, enough=enough)
            return await work.run(in_process(system, web))

    return await until_stopped(live(), at_once=system.kill, tell=screen.note)


class StormyReplay(Replay):
    """A replay whose orders are paced over a storm, and all of them sent a second time."""

    step = 1

    def __init__(self, history: History, system: System, web: Witness, chaos: Chaos, *, enough: bool) -> None:
        super().__init__(history, system.screen, concurrency=CONCURRENCY, enough=enough)
        self._system, self._web, self._chaos = system, web, chaos
        self._began = datetime.now(UTC) - timedelta(seconds=120)
        self._storm: Storm | None = None
        self._repeated: list[str] = []
        self._stalls: list[tuple[float, float]] = []
        self._checks: list[Check] = []

    def accidents(self) -> list[Accident]:
        """Return the schedule of faults."""
        return schedule(self._chaos.seed, self._chaos.kills, self._chaos.duration, targets(self._system))

    async def run(self, stage: Stage) -> int:
        """Return the replay, then I1 to I8."""
        status = await super().run(stage)
        async with AsyncExitStack() as stack:
            books = {
                name: await stack.enter_async_context(Database(f"storm-{name}", dsn=dsn, max_size=1))
                for name, dsn in stage.running.databases.items()
            }
            with self.screen.step("every record in Kafka read"):
                log = await read_log(stage.running, topology.TOPICS, self._began)
            checks = judge(await self._evidence(books, log))
            self._tell(checks)
            if status or any(check.differences for check in checks):
                await self._stories(books, log, [*self._checks, *checks])
        return int(bool(status) or any(check.differences for check in checks))

    async def _place(self, placing: Placing) -> tuple[dict[str, Placed], list[str]]:
        with self._bar("customers registered", len(self.history.customers)) as done:
            await placing.register(done)
        accidents = self.accidents()
        storm = self._storm = Storm(Hand(self._system), accidents, self.screen.note)
        pace = self._chaos.duration / len(self.history.orders)
        with self._bar(f"orders placed in a storm of {self._chaos.duration:g} s", len(self.history.orders)) as done:
            async with asyncio.TaskGroup() as group:
                group.create_task(storm.run())
                placing_all = group.create_task(placing.place(done, every=pace))
                feeling = asyncio.create_task(self._feel())
                placing_all.add_done_callback(lambda _: feeling.cancel())
        placed = placing_all.result()
        with self.screen.step(f"{len(storm.struck)} accidents happened; everybody is back"):
            await self._calm()
        with self.screen.step("every order sent a second time"):
            self._repeated = await placing.repeat(placed, step=self.step)
        return placed, self._repeated

    async def _feel(self) -> None:
        """Notice when this process itself gets no CPU."""
        while True:
            asleep = time.time()
            await asyncio.sleep(PULSE)
            if (late := time.time() - asleep - PULSE) > STALL:
                self._stalls.append((asleep, asleep + PULSE + late))

    async def _calm(self) -> None:
        wanted = tuple(each.service.name for each in self._system.instances if each.service is not topology.DISCOVERY)
        async with Web(self._system.running.discovery) as discovery:

            async def all_ready() -> bool:
                if await registry.missing(discovery, wanted):
                    return False
                found = [each for each in await registry.instances(discovery) if each.status == registry.UP]
                ready = await asyncio.gather(*(registry.is_ready(each) for each in found if each.app != "gateway"))
                return all(ready)

            if not await until(all_ready, timeout=CALM_TIMEOUT, poll=0.5):
                raise RuntimeError(
                    f"{CALM_TIMEOUT:g} s after the storm not everybody is ready. "
                    f"Not in the registry: {', '.join(await registry.missing(discovery, wanted)) or 'nobody'}"
                )

    def _report(self, checks: list[Check], placing: Placing) -> int:
        self._checks = checks
        return super()._report(checks, placing)

    async def _evidence(self, books: Mapping[str, Database], log: list[Entry]) -> Evidence:
        assert self.case is not None
        assert self._storm is not None
        lines = await books["inventory"].fetchrow(sql.ledger_lines)
        payments = await _pairs(books["payments"], sql.payment_states, "status")
        return Evidence(
            case=self.case,
            log=log,
            versions={
                "orders": await _pairs(books["orders"], sql.order_versions, "version"),
                "inventory": await _pairs(books["inventory"], sql.stock_versions, "version"),
                "products": await _pairs(books["catalog"], sql.product_versions, "version"),
            },
            expected={
                "payment.captured": frozenset(k for k, v in payments.items() if v in ("captured", "refunded")),
                "payment.refunded": frozenset(k for k, v in payments.items() if v == "refunded"),
                "inventory.reserved": frozenset(await _keys(books["inventory"], sql.ever_reserved)),
                "notification.sent": frozenset(await _keys(books["notifications"], sql.mails_told)),
            },
            unpublished={name: await _there(book, "outbox", sql.unpublished) for name, book in books.items()},
            inbox={
                group: count
                for name in ("orders", "inventory", "notifications", "analytics")
                for group, count in (await _pairs(books[name], sql.inbox, "version")).items()
            },
            ledger_lines=lines["lines"] if lines else 0,
            impossible_lines=lines["impossible"] if lines else 0,
            repeated=len(self.history.orders),
            otherwise=self._repeated,
            attempts=[each for each in self._web.attempts if each.at <= self._last()],
            struck=self._storm.struck,
            stalls=self._stalls,
            reconciled=self._checks,
        )

    def _last(self) -> float:
        """Wall time of the storm's end; what came later proves nothing."""
        assert self._storm is not None
        return max((struck.ended for struck in self._storm.struck), default=time.time())

    def _tell(self, checks: Sequence[Check]) -> None:
        assert self._storm is not None
        self.screen.title(
            "What must always hold", f"after {len(self._storm.struck)} accidents: {_summary(self._storm)}"
        )
        rows = [("  ✗" if check.differences else "  ✓", check.name, check.found) for check in checks]
        self.screen.rows(("", "invariant", "checked on"), rows)
        for check in checks:
            for line in check.differences[:20]:
                self.screen.plain(f"  ✗ {check.name}: {line}")
        broken = sum(bool(check.differences) for check in checks)
        self.screen.say("")
        self.screen.say(f"{broken} of {len(checks)} do not hold" if broken else f"all {len(checks)} hold")

    async def _stories(self, books: Mapping[str, Database], log: list[Entry], checks: Sequence[Check]) -> None:
        assert self._storm is not None
        text = "\n".join(line for check in checks for line in check.differences)
        ids = {
            placed.order.number: placed.id for placed in (self.case.placed.values() if self.case else ()) if placed.id
        }
        numbers = dict.fromkeys(re.findall(r"order '?(\d{4,6})", text))
        told = [number for number in numbers if number in ids][:STORIES]
        for number in told:
            self.screen.title(f"Order {number}", ids[number])
            for line in await story(ids[number], books, log, self._storm.struck):
                self.screen.plain(f"  {line}")


def _summary(storm: Storm) -> str:
    counts: dict[str, int] = {}
    for struck in storm.struck:
        counts[struck.accident.kind] = counts.get(struck.accident.kind, 0) + 1
    return ", ".join(f"{count} × {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1]))


async def _pairs(book: Database, statement: str, column: str) -> dict[str, Any]:
    return {row["id"]: row[column] for row in await book.fetch(statement)}


async def _keys(book: Database, statement: str) -> list[str]:
    return [row["id"] for row in await book.fetch(statement)]


async def _there(book: Database, table: str, statement: str) -> int:
    if not await book.fetchval("SELECT to_regclass($1) IS NOT NULL", table):
        return 0
    return int(await book.fetchval(statement))


__all__ = ["Chaos", "replay_in_a_storm"]
