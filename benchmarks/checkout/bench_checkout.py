"""The whole checkout on Apache Kafka: orders a second, latency, CPU by process, memory, consumers behind.

Closed loop with 1, 16 and 64 clients, then an open loop at half of the most it took; each with the system warm and all
consumers caught up before. Once without mails (`SMTP_URL=null:`), once with them. The load client is a process of its
own on the same cores and is shown as one; `make bench-checkout ARGS="--seconds 20"`.
"""

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
import timeit
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import profiling
from rich.console import Console

from backstay.dev import account, apache
from backstay.dev.processes import Cost, costs
from backstay.dev.screen import Screen
from backstay.dev.web import Web
from lab.load.depths import Depths, Gauge
from lab.load.plot import Line, percentiles
from lab.system import seed
from lab.system.context import in_process
from lab.system.options import APACHE, Options
from lab.system.system import System

CLIENT = Path(__file__).with_name("load_client.py")
CLIENTS = (1, 16, 64)
SPY_START = 1.0  # seconds of the load before and after the profile
WARM_UP = 10.0  # seconds with 16 clients
CATCH_UP = 120.0  # seconds for consumers to catch up at most
SETTINGS = {"RATE_LIMIT_PER_SECOND": "100000", "RATE_LIMIT_BURST": "100000"}
"""All load comes from a few customers here."""


@dataclass(frozen=True)
class Row:
    """One measurement. CPU in milliseconds for each order."""

    name: str
    figures: dict
    cpu: dict[str, float]
    memory: int
    behind: Depths
    caught_up: float

    @property
    def total(self) -> float:
        return sum(cost for name, cost in self.cpu.items() if name != "load client")


class LoadClient:
    """The process that asks. Customers and stock are made when it starts, so they cost nothing later."""

    def __init__(self, home: Path) -> None:
        self.home = home

    async def __aenter__(self) -> "LoadClient":
        argv, pipe = [sys.executable, str(CLIENT), str(self.home)], asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe)
        assert await self._line() == b"ready\n"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._process.stdin.close()
        await self._process.wait()

    async def run(self, *, clients: int, rate: float, seconds: float) -> dict:
        wanted = {"clients": clients, "rate": rate, "seconds": seconds}
        self._process.stdin.write(json.dumps(wanted).encode() + b"\n")
        return json.loads(await self._line())

    async def _line(self) -> bytes:
        line = await self._process.stdout.readline()
        assert line, "the load client has ended"
        return line


async def measure(
    system: System, gauge: Gauge, load: LoadClient, name: str, *, clients: int, rate: float, seconds: float
) -> Row:
    """Load the system once and look at everything before and after, until all consumers have caught up."""
    before = cost_of(system)
    figures = await load.run(clients=clients, rate=rate, seconds=seconds)
    ended = time.monotonic()
    behind = await gauge.look()
    memory = system.memory() or 0
    caught_up = await catch_up(gauge, ended)
    after = cost_of(system)
    orders = max(figures["good"], 1)
    cpu = {n: (cost.cpu - before[n].cpu) * 1000 / orders for n, cost in after.items() if n in before}
    cpu["load client"] = figures["cpu"] * 1000 / orders
    return Row(name, figures, cpu, memory, behind, caught_up)


async def catch_up(gauge: Gauge, since: float) -> float:
    """Wait until nobody is behind; seconds since then."""
    while not (await gauge.look()).caught_up and time.monotonic() < since + CATCH_UP:
        await asyncio.sleep(0.1)
    return time.monotonic() - since


def cost_of(system: System) -> dict[str, Cost]:
    found = costs(system.supervisor.pids_by_name())
    usage = os.times()
    own = Cost(usage.user + usage.system, 0, 0)
    return {**found, "supervisor and mailbox": own}


async def run(arguments: argparse.Namespace, *, mails: bool) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="backstay-bench-", dir="/tmp") as home, ExitStack() as leaving:
        leaving.callback(account.remove_bases, Path(home))
        options = Options(
            home=Path(home),
            kafka=APACHE,
            smtp_url="" if mails else "null:",
            gateway_port=0,
            discovery_port=0,
            settings=SETTINGS,
        )
        system = System(options, Screen(Console(file=sys.stderr, width=120)))
        async with (
            system,
            Web(system.running.gateway) as web,
            Gauge(system.running.databases) as gauge,
            AsyncExitStack() as stack,
        ):
            await seed.seed(in_process(system, web))
            load = await stack.enter_async_context(LoadClient(system.home.path))
            await measure(system, gauge, load, "warm-up", clients=16, rate=0, seconds=arguments.warm_up)
            rows = []
            for clients in CLIENTS:
                name = f"closed, {clients} client{'s' * (clients > 1)}"
                rows.append(
                    await measure(system, gauge, load, name, clients=clients, rate=0, seconds=arguments.seconds)
                )
                tell(rows[-1])
            if arguments.profile:
                await profiled(system, load, arguments)
                await catch_up(gauge, time.monotonic())
            rate = max(row.figures["rate"] for row in rows) / 2
            name = f"open, {rate:,.0f}/s"
            rows.append(await measure(system, gauge, load, name, clients=256, rate=rate, seconds=arguments.seconds))
            tell(rows[-1])
            return rows


async def profiled(system: System, load: LoadClient, arguments: argparse.Namespace) -> None:
    """64 clients once more, every process watched; its figures don't count."""
    pids = {name: pid for name, pid in system.supervisor.pids_by_name().items() if name not in ("postgres", "kafka")}
    running = asyncio.create_task(load.run(clients=64, rate=0, seconds=arguments.seconds))
    await asyncio.sleep(SPY_START)
    await profiling.record(pids, arguments.profile, seconds=arguments.seconds - 2 * SPY_START)
    await running
    for name in sorted(pids):
        file = arguments.profile / f"{name}.txt"
        if file.exists() and file.stat().st_size:
            print("\n" + profiling.summary(file), flush=True)


def tell(row: Row) -> None:
    ms, bad = row.figures["ms"], row.figures["bad"]
    print(
        f"{row.name:<20} {row.figures['rate']:7,.0f} orders/s   p50 {ms['p50']:6.1f}  p99 {ms['p99']:6.1f} ms   "
        f"{bad} errors   CPU {row.total:5.2f} ms an order   {row.memory / 1e6:,.0f} MB   "
        f"{row.behind.outbox:,} events unpublished, at most {max(row.behind.behind.values()):,} orders behind, "
        f"caught up after {row.caught_up:.1f} s",
        flush=True,
    )


def table(rows: list[Row]) -> str:
    """Markdown, for RESULTS.md."""
    lines = [
        "| load | orders/s | p50 / p99 ms | errors | CPU ms an order | memory MB | unpublished at the end | "
        "orders behind at most | caught up after |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        ms = row.figures["ms"]
        lines.append(
            f"| {row.name} | {row.figures['rate']:,.0f} | {ms['p50']:.1f} / {ms['p99']:.1f} | {row.figures['bad']} | "
            f"{row.total:.2f} | {row.memory / 1e6:,.0f} | {row.behind.outbox:,} | "
            f"{max(row.behind.behind.values()):,} | {row.caught_up:.1f} s |"
        )
    names = sorted(rows[-2].cpu, key=lambda name: -rows[-2].cpu[name])
    lines += ["", "| CPU ms an order | " + " | ".join(row.name for row in rows) + " |", "|---|" + "---:|" * len(rows)]
    lines += [f"| {name} | " + " | ".join(f"{row.cpu.get(name, 0):.2f}" for row in rows) + " |" for name in names]
    return "\n".join(lines)


def environment() -> str:
    """Versions and cores, and what a turn of a bare loop takes: it tells machines and builds of Python apart."""
    turns = 1_000_000
    bare = min(timeit.repeat("count += 1", "count = 0", repeat=5, number=turns)) / turns * 1e9
    versions = f"CPython {platform.python_version()}, Apache Kafka {apache.VERSION}"
    return f"{versions}, {os.cpu_count()} cores, a turn of a bare loop {bare:.0f} ns"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement")
    parser.add_argument("--warm-up", type=float, default=WARM_UP)
    parser.add_argument("--mails", choices=("off", "on", "both"), default="both")
    parser.add_argument("--profile", type=Path, help="folder for py-spy's stacks, if it is on the PATH")
    parser.add_argument("--plot", type=Path, help="SVG of the percentiles without mails")
    arguments = parser.parse_args()
    print(f"checkout: {environment()}, load average {os.getloadavg()[0]:.1f} before", flush=True)
    for mails in {"off": (False,), "on": (True,), "both": (False, True)}[arguments.mails]:
        print(f"\nmails {'on' if mails else 'off'}", flush=True)
        rows = asyncio.run(run(arguments, mails=mails))
        print("\n" + table(rows))
        print(f"\n{environment()}, after", flush=True)
        if arguments.plot and not mails:
            lines = [Line(row.name, row.figures["curve"]) for row in rows]
            arguments.plot.write_text(percentiles("Checkout through the gateway, mails off", lines))


if __name__ == "__main__":
    main()
