"""`shop load`: prepare customers and stock, load, show progress, and print the results."""

import asyncio
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backstay.dev.home import Home, Running
from backstay.dev.screen import Screen
from backstay.dev.web import Web
from lab.client.user import Shopper
from lab.load.histogram import PERCENTILES, shown
from lab.load.plot import Line, percentiles
from lab.load.run import Measured, closed, open_loop
from lab.load.scenario import MIX, ORDERS_ONLY, Scenario, Visitor
from lab.system.context import Stage, remote

PLENTY = 50_000_000  # units of each product, so that no order is refused for its stock
AT_ONCE = 8
REGISTER_AT_ONCE = 4  # each costs a password hash
LIVE = 1.0  # seconds between two looks


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a run. `rate` 0 is a closed loop; `customers` share the work under limits of their own."""

    rate: float = 0.0
    clients: int = 16
    seconds: float = 30.0
    customers: int = 32
    orders_only: bool = False
    plot: Path | None = None
    report: Path | None = None

    @property
    def mix(self) -> Mapping[str, int]:
        """Of actions."""
        return ORDERS_ONLY if self.orders_only else MIX

    def __str__(self) -> str:
        if self.rate:
            return f"open loop: {self.rate:g} requests/s for {self.seconds:g} s, at most {self.clients} at once"
        return f"closed loop: {self.clients} clients for {self.seconds:g} s"


async def load(home: Home, running: Running, screen: Screen, plan: Plan) -> Measured:
    """Return the whole command."""
    async with Web(running.gateway) as web:
        stage = remote(home, running, screen, web)
        with screen.step(f"{plan.customers} customers and plenty of stock"):
            skus = await stocked(stage)
            visitors = await visit(stage, plan.customers)
    measured = Measured()
    scenario = Scenario(running.gateways or [running.gateway], visitors, skus, mix=plan.mix, connections=plan.clients)
    try:
        await drive(scenario, plan, measured, screen)
    finally:
        scenario.close()
    tell(screen, plan, measured)
    write(plan, measured, screen)
    return measured


async def drive(scenario: Scenario, plan: Plan, measured: Measured, screen: Screen) -> None:
    """Load, with a line that lives meanwhile."""
    live = asyncio.create_task(_live(measured, screen)) if screen.console.is_terminal else None
    try:
        with screen.step(str(plan), spinner=False):
            if plan.rate:
                await open_loop(
                    scenario.act, rate=plan.rate, clients=plan.clients, seconds=plan.seconds, measured=measured
                )
            else:
                await closed(scenario.act, clients=plan.clients, seconds=plan.seconds, measured=measured)
    finally:
        if live is not None:
            live.cancel()
            await asyncio.gather(live, return_exceptions=True)


async def stocked(stage: Stage) -> list[str]:
    """Products that can be ordered, with more stock than can be sold."""
    admin = stage.admin()
    products = await admin.every("/api/v1/products?available=true")
    skus = [product["sku"] for product in products if product["sku"].startswith("NW-")]
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(sku: str) -> None:
        async with gate:
            (await admin.ask("PUT", f"/api/v1/stock/{sku}", {"on_hand": PLENTY})).expect(200)

    await asyncio.gather(*map(one, skus))
    return skus


async def visit(stage: Stage, count: int) -> list[Visitor]:
    """Customers of the load, the same ones each time, logged in."""
    gate = asyncio.Semaphore(REGISTER_AT_ONCE)

    async def one(number: int) -> Visitor:
        async with gate:
            shopper = Shopper(stage.web, f"load-{number}@customers.example", stage.home.secret("load"))
            await shopper.register(f"Load {number}")
            return await Visitor.of(shopper)

    return list(await asyncio.gather(*map(one, range(count))))


async def _live(measured: Measured, screen: Screen) -> None:
    before = 0
    with screen.console.status("") as line:
        while True:
            await asyncio.sleep(LIVE)
            latest = measured.good
            p50, p99 = (measured.all.percentile(percent) * 1000 for percent in (50, 99))
            line.update(
                f"{(latest - before) / LIVE:,.0f}/s   {latest:,} good, {measured.bad:,} not   "
                f"p50 {p50:,.1f} ms   p99 {p99:,.1f} ms"
            )
            before = latest


def tell(screen: Screen, plan: Plan, measured: Measured) -> None:
    """The table at the end."""
    rows = [_row(name, measured) for name in measured.latencies]
    columns = ("  action", "good", "a second", *(f"p{percent:g} ms" for percent in PERCENTILES[:-1]), "longest ms")
    screen.title("What it was like", str(plan))
    screen.rows(columns, rows, right=range(1, len(columns)))
    screen.say("")
    screen.say(f"{measured.good:,} good answers, {measured.rate:,.0f}/s; {_errors(measured)}")
    if plan.rate:
        screen.say("measured from when each was due, so waiting to be sent counts (no coordinated omission)")
        if measured.late:
            screen.say(f"{measured.late:,} were still waiting at the end: more than the system takes")
    else:
        screen.say("a closed loop asks less while it waits, so its percentiles hide queues (coordinated omission)")


def _row(action: str, measured: Measured) -> tuple[str, ...]:
    histogram = measured.latencies[action]
    return (f"  {action}", f"{histogram.count:,}", f"{histogram.count / measured.seconds:,.0f}", *shown(histogram))


def _errors(measured: Measured) -> str:
    bad = [
        f"{count:,} × {action} {status or 'without answer'}"
        for (action, status), count in sorted(measured.statuses.items())
        if status not in (200, 201, 202)
    ]
    later = sum(count for (action, status), count in measured.statuses.items() if status == 202)
    return f"{', '.join(bad) or 'no errors'}; {later:,} orders to be paid later (202)"


def write(plan: Plan, measured: Measured, screen: Screen) -> None:
    """Write the plot and the report, if requested."""
    if plan.plot is not None:
        lines = [
            Line(name, [(point.percent, point.seconds * 1000) for point in histogram.curve()])
            for name, histogram in measured.latencies.items()
        ]
        plan.plot.write_text(percentiles(str(plan), lines))
        screen.say(f"plot: {plan.plot}")
    if plan.report is not None:
        plan.report.write_text(json.dumps(report(measured)))


def report(measured: Measured) -> dict[str, Any]:
    """Return the same as JSON; milliseconds. `cpu`: seconds that this client took, preparation included."""
    usage = os.times()
    return {
        "cpu": usage.user + usage.system,
        "seconds": measured.seconds,
        "good": measured.good,
        "bad": measured.bad,
        "rate": measured.rate,
        "late": measured.late,
        "statuses": {f"{action} {status}": count for (action, status), count in measured.statuses.items()},
        "ms": {f"p{percent:g}": measured.all.percentile(percent) * 1000 for percent in PERCENTILES},
        "curve": [(point.percent, point.seconds * 1000) for point in measured.all.curve()],
    }


__all__ = ["Plan", "drive", "load", "report", "stocked", "tell", "visit", "write"]
