"""Checkouts at a fixed rate while payments is slow, failing, dead and flapping; what was seen, and whether it held.

Held means, for each of these: the 99th percentile of checkouts is under their deadline and every one is answered with
an order; payments gets no more retries than the budget allows; nothing is charged twice; and once payments is back,
every order settles by itself.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from backstay.db import Database, Queries
from backstay.dev import registry
from backstay.dev.screen import Screen
from backstay.dev.stopping import Stopped, until_stopped
from backstay.dev.waiting import until
from backstay.dev.web import Web
from backstay.errors import BackstayError
from backstay.resilience.budget import WINDOW
from lab.load.command import stocked, visit
from lab.load.plot import HEIGHT, WIDTH, Line, over_time
from lab.load.run import Measured, open_loop
from lab.load.scenario import ORDERS_ONLY, Outcome, Scenario
from lab.system import seed
from lab.system.context import Stage, in_process
from lab.system.options import Options
from lab.system.system import System
from shop.orders.config import Settings

sql = Queries.load(Path(__file__).with_name("payments_outage.sql"))

POINT = "payments.charge.before-intent-commit"
FLAP = 2.0  # seconds that payments is there, and not there
SAMPLE = 0.5  # seconds
CUSTOMERS = 48
CLIENTS = 512  # checkouts in flight at most: a rate of 200 for longer than their deadline
WARM_UP = 15.0  # seconds at half the rate: what comes first is slow whatever payments does
SETTLE = 240.0  # seconds
STATES = {"CLOSED": 0.0, "HALF_OPEN": 1.0, "OPEN": 2.0}
SETTINGS = {"RATE_LIMIT_PER_SECOND": "100000", "RATE_LIMIT_BURST": "100000"}
"""All requests come from a few customers here."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Checkouts a second, and the seconds that each fault lasts."""

    rate: float = 200.0
    seconds: float = 60.0
    faults: tuple[str, ...] = ()
    """First words of the faults to show; all if there are none."""


@dataclass(slots=True)
class Fault:
    """One way to fail, and what was seen under it."""

    name: str
    begin: Callable[[], Awaitable[object]]
    end: Callable[[], Awaitable[object]]
    measured: Measured = field(default_factory=Measured)
    retries: int = 0
    calls: int = 0
    refused: int = 0
    judged: bool = True
    """Whether checkouts must hold their deadline: without a fault the machine itself may be too slow for the rate."""
    settled: float | None = None
    """Seconds until every order was settled after payments was back."""

    @property
    def p99(self) -> float:
        """Of all checkouts, in seconds."""
        return self.measured.all.percentile(99)

    def allowed(self, seconds: float) -> float:
        """Retries that the budget grants in that time."""
        orders = Settings()
        return orders.payment_retry_ratio * self.calls + orders.payment_retry_minimum * (seconds + WINDOW)

    def broken(self, seconds: float) -> list[str]:
        """Return the expectations that did not hold."""
        found, deadline = [], Settings().checkout_deadline
        if self.judged and self.p99 >= deadline:
            found.append(f"{self.name}: p99 {self.p99:.2f} s is not under the deadline of {deadline:g} s")
        if self.judged and (self.measured.bad or self.measured.late):
            answers = {
                f"{status}": count
                for (_, status), count in self.measured.statuses.items()
                if status >= 300 or not status
            }
            found.append(f"{self.name}: without an order: {answers or self.measured.late}")
        if self.retries > self.allowed(seconds):
            found.append(f"{self.name}: {self.retries} retries, the budget allows {self.allowed(seconds):.0f}")
        if self.settled is None:
            found.append(f"{self.name}: orders still wait for their payment {SETTLE:g} s after it was back")
        return found


class Drill:
    """One run on one system."""

    def __init__(self, stage: Stage, faults: Path, plan: Plan) -> None:
        self.stage, self.plan = stage, plan
        self._file = faults / "payments"
        self._started = time.monotonic()
        self._latencies: list[tuple[float, float]] = []
        self._answers: list[float] = []
        self._states: list[tuple[float, float]] = []
        self.marks: list[tuple[float, str]] = []
        self._flapping: asyncio.Task[None] | None = None
        every = [
            Fault("calm", self._nothing, self._nothing, judged=False),
            Fault("slow by 5 s", lambda: self._arm("delay:5"), self._disarm),
            Fault("failing at 30 %", lambda: self._arm("fail:30"), self._disarm),
            Fault("dead", lambda: stage.stop("payments"), lambda: stage.start("payments")),
            Fault(f"flapping every {FLAP:g} s", self._begin_flapping, self._end_flapping),
        ]
        self.faults = [fault for fault in every if not plan.faults or fault.name.split()[0] in plan.faults]

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    async def run(self) -> list[str]:
        """All faults, one after the other; what did not hold."""
        skus = await stocked(self.stage)
        visitors = await visit(self.stage, CUSTOMERS)
        running = self.stage.running
        scenario = Scenario([running.gateway], visitors, skus, mix=ORDERS_ONLY, connections=CLIENTS)
        async with AsyncExitStack() as stack:
            books = {
                name: Database(f"drill-{name}", dsn=running.databases[name], max_size=1)
                for name in ("orders", "payments")
            }
            for book in books.values():
                await stack.enter_async_context(book)
            stack.callback(scenario.close)
            with self.stage.screen.step(f"warm-up: {WARM_UP:g} s at half the rate"):
                await open_loop(
                    scenario.act, rate=self.plan.rate / 2, clients=CLIENTS, seconds=WARM_UP, measured=Measured()
                )
                self._started = time.monotonic()
            watching = asyncio.create_task(self._watch())
            try:
                for fault in self.faults:
                    await self._under(fault, scenario, books)
            finally:
                watching.cancel()
                await self._end_flapping()
                await asyncio.gather(watching, return_exceptions=True)
            twice = int(await books["payments"].fetchval(sql.charged_twice))
            differing = int(await books["payments"].fetchval(sql.provider_differs))
        broken = [each for fault in self.faults for each in fault.broken(self.plan.seconds)]
        if twice or differing:
            broken.append(f"{twice} orders charged more than once, {differing} charges unlike the provider's books")
        return broken

    async def _under(self, fault: Fault, scenario: Scenario, books: dict[str, Database]) -> None:
        plan = self.plan
        with self.stage.screen.step(f"{fault.name}: {plan.rate:g} checkouts/s for {plan.seconds:g} s") as step:
            before = await self._counts()
            self.marks.append((self.now, fault.name))
            await fault.begin()
            try:
                await open_loop(
                    lambda: self._timed(scenario.act),
                    rate=plan.rate,
                    clients=CLIENTS,
                    seconds=plan.seconds,
                    measured=fault.measured,
                )
            finally:
                await fault.end()
            after = await self._counts()
            fault.calls, fault.retries, fault.refused = (
                late - early for early, late in zip(before, after, strict=True)
            )
            back = time.monotonic()

            async def settled() -> bool:
                return not await books["orders"].fetchval(sql.unsettled)

            if await until(settled, timeout=SETTLE, poll=SAMPLE):
                fault.settled = time.monotonic() - back
            step.text = f"{fault.name}: p99 {fault.p99 * 1000:,.0f} ms, {fault.measured.good:,} orders"

    async def _timed(self, act: Callable[[], Awaitable[Outcome]]) -> Outcome:
        sent = time.monotonic()
        outcome = await act()
        self._latencies.append((self.now, time.monotonic() - sent))
        self._answers.append(self.now)
        return outcome

    # -- faults -----------------------------------------------------------------------------------------------

    async def _nothing(self) -> None:
        """Payments as it should be."""

    async def _arm(self, action: str) -> None:
        draft = self._file.with_name(f"{self._file.name}.new")
        draft.write_text(f"{POINT}={action}\n" if action else "")
        draft.replace(self._file)

    async def _disarm(self) -> None:
        await self._arm("")

    async def _begin_flapping(self) -> None:
        async def flap() -> None:
            while True:
                await self._arm("error")
                await asyncio.sleep(FLAP)
                await self._disarm()
                await asyncio.sleep(FLAP)

        self._flapping = asyncio.create_task(flap())

    async def _end_flapping(self) -> None:
        if self._flapping is not None:
            self._flapping.cancel()
            await asyncio.gather(self._flapping, return_exceptions=True)
            self._flapping = None
            await self._disarm()

    # -- what is seen -----------------------------------------------------------------------------------------

    async def _orders(self) -> Web:
        async with Web(self.stage.running.discovery) as discovery:
            found = next(i for i in await registry.instances(discovery) if i.app == "orders")
        return Web(found.address)

    async def _watch(self) -> None:
        """The breaker's state, twice a second."""
        async with await self._orders() as orders:
            while True:
                try:
                    shown: dict[str, Any] = await orders.get("/actuator/circuitbreakers")
                    state = shown["circuitBreakers"]["payments"]["state"]
                    self._states.append((self.now, STATES.get(state, 0.0)))
                except (BackstayError, OSError, RuntimeError):
                    pass  # a sample less
                await asyncio.sleep(SAMPLE)

    async def _counts(self) -> tuple[int, int, int]:
        """Guarded calls to payments, retries among them, and refusals by the breaker, so far."""
        async with await self._orders() as orders:
            text = str(await orders.get("/metrics"))
        of = {"calls": 0.0, "retries": 0.0, "refused": 0.0}
        for line in text.splitlines():
            if line.startswith("resilience4j_retry_calls_total{") and 'name="payments"' in line:
                of["calls"] += float(line.rpartition(" ")[2])
            elif line.startswith("backstay_retry_retries_total{") and 'name="payments"' in line:
                of["retries"] += float(line.rpartition(" ")[2])
            elif line.startswith("resilience4j_circuitbreaker_not_permitted_calls_total{"):
                of["refused"] += float(line.rpartition(" ")[2])
        return int(of["calls"]), int(of["retries"]), int(of["refused"])

    def plot(self) -> str:
        """State, rate and latency over time, one above the other."""
        seconds = range(int(self.now) + 1)
        by_second: list[list[float]] = [[] for _ in seconds]
        for at, took in self._latencies:
            by_second[int(at)].append(took * 1000)
        p50 = [(float(s), sorted(found)[len(found) // 2]) for s, found in enumerate(by_second) if found]
        p99 = [(float(s), sorted(found)[int(len(found) * 0.99)]) for s, found in enumerate(by_second) if found]
        rate = [(float(s), float(len(found))) for s, found in enumerate(by_second)]
        when = ", ".join(f"{name.split()[0]} {at:.0f} s" for at, name in self.marks)
        end = [(self.now, 0.0)]  # the three have one axis of time
        plots = (
            over_time(
                f"breaker (1 half-open, 2 open) · {when}",
                [Line("state", self._states), Line("", end)],
                unit="",
            ),
            over_time("checkouts answered a second", [Line("answers", rate), Line("", end)], unit="/s"),
            over_time("time to answer a checkout", [Line("p50", p50), Line("p99", p99), Line("", end)], unit="ms"),
        )
        size = f'width="{WIDTH}" height="{HEIGHT}"'  # without it each would take the whole
        placed = [plot.replace("<svg ", f'<svg y="{HEIGHT * at}" {size} ', 1) for at, plot in enumerate(plots)]
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT * len(plots)}">'
        return "\n".join([head, *placed, "</svg>", ""])


async def drill(options: Options, screen: Screen, plan: Plan) -> int:
    """Return the whole command: a system of its own, the drill, table, plot and verdict; the exit status."""
    home = options.home / "drill"
    faults = home.with_name("drill-faults")
    faults.mkdir(parents=True, exist_ok=True)
    (faults / "payments").write_text("")
    own = replace(
        options,
        home=home,
        gateway_port=0,
        discovery_port=0,
        smtp_url="null:",
        fresh=True,
        faults=faults,
        settings=SETTINGS,
    )
    system = System(own, screen)

    async def live() -> int:
        screen.title("Payments fails in every way", f"on a system of its own, home {home}")
        async with system, Web(system.running.gateway, max_connections=CUSTOMERS) as web:
            stage = in_process(system, web)
            await seed.seed(stage)
            work = Drill(stage, faults, plan)
            broken = await work.run()
            plot = options.home / "chaos-payments.svg"
            plot.write_text(work.plot())
            _tell(screen, work, plan, plot)
            for each in broken:
                screen.problem(each)
            return 1 if broken else 0

    try:
        return await until_stopped(live(), at_once=system.kill, tell=screen.note)
    except Stopped:
        return 130


def _tell(screen: Screen, work: Drill, plan: Plan, plot: Path) -> None:
    rows = []
    for fault in work.faults:
        statuses = fault.measured.statuses
        settled = "never" if fault.settled is None else f"{fault.settled:.0f} s"
        rows.append(
            (
                f"  {fault.name}",
                f"{fault.measured.rate:.0f}",
                f"{statuses['order', 201]:,}",
                f"{statuses['order', 202]:,}",
                f"{fault.measured.bad}",
                f"{fault.measured.all.percentile(50) * 1000:,.0f}",
                f"{fault.p99 * 1000:,.0f}",
                f"{fault.retries} of {fault.allowed(plan.seconds):.0f}",
                f"{fault.refused:,}",
                settled,
            )
        )
    columns = (
        "  payments is",
        "a second",
        "201",
        "202",
        "none",
        "p50 ms",
        "p99 ms",
        "retries",
        "refused",
        "settled after",
    )
    screen.rows(columns, rows, right=tuple(range(1, len(columns))))
    screen.say(f"nothing charged twice unless said below; state, rate and latency over time: {plot}")


__all__ = ["Drill", "Plan", "drill"]
