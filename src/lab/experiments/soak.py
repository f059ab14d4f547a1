"""`shop soak`: constant load, a fault every so often, and what must not grow: memory, descriptors, outbox, backlog."""

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from backstay.dev.processes import Cost, costs
from backstay.dev.screen import Screen
from backstay.dev.stopping import until_stopped
from backstay.dev.waiting import until
from backstay.dev.web import Web
from lab.faults.injector import Hand
from lab.faults.run import Storm, targets
from lab.faults.schedule import Accident, Kind, Targets, schedule
from lab.load.command import Plan as Load
from lab.load.command import stocked, tell, visit
from lab.load.depths import Depths, Gauge
from lab.load.plot import Line, growth, over_time
from lab.load.run import Measured, open_loop
from lab.load.scenario import MIX, Scenario
from lab.system import infrastructure, seed
from lab.system.context import in_process
from lab.system.options import APACHE, EMBEDDED, Options
from lab.system.system import System

FAULT_EVERY = 30.0  # seconds
LOOK_EVERY = 5.0  # seconds
RATE = 40.0  # requests a second, a fifth of them orders
CUSTOMERS = 16
WARM_UP = 0.2  # of the run, not counted for growth
CATCH_UP = 60.0  # seconds after the load in which everybody must have caught up
GROWTH_OF_MEMORY = 0.25  # of what it was, that a process may have grown between warm-up and end
GROWTH_OF_DESCRIPTORS = 40
CALM = (Kind.KILL_BROKER, Kind.RESTART_BROKER)
"""Left out: their own memory starts again with each."""


@dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment, `at` seconds after the start."""

    at: float
    costs: Mapping[str, Cost]
    depths: Depths | None


@dataclass(slots=True)
class Soaked:
    """All measurements of a run."""

    looks: list[Look] = field(default_factory=list)

    def line(self, name: str, what: str) -> list[tuple[float, float]]:
        """One figure of one process over time."""
        return [(look.at, float(getattr(look.costs[name], what))) for look in self.looks if name in look.costs]

    def depth(self, what: str) -> list[tuple[float, float]]:
        """Rows of all outboxes or inboxes over time, or orders behind."""
        return [
            (look.at, float(max(look.depths.behind.values()) if what == "behind" else getattr(look.depths, what)))
            for look in self.looks
            if look.depths is not None
        ]


async def soak(options: Options, screen: Screen, *, minutes: float, seed_of_storm: int, rate: float = RATE) -> int:
    """Run it; returns the exit status: 0 when nothing grew and all consumers caught up."""
    own = replace(
        options,
        home=options.home / "soak",
        kafka=APACHE if options.kafka == EMBEDDED else options.kafka,
        smtp_url=options.smtp_url or "null:",
        gateway_port=0,
        discovery_port=0,
        doors=True,
        restart_delay=1.0,
    )
    system = System(own, screen)
    if not system.home.is_locked():
        infrastructure.empty(system.home, own.kafka)

    async def live() -> int:
        screen.title("Soak", f"{minutes:g} minutes at {rate:g} requests/s, a fault every {FAULT_EVERY:g} s")
        async with system, Web(system.running.gateway) as web, Gauge(system.running.databases) as gauge:
            stage = in_process(system, web)
            await seed.seed(stage)
            skus, visitors = await stocked(stage), await visit(stage, CUSTOMERS)
            scenario = Scenario(system.running.gateways, visitors, skus, mix=MIX, connections=256)
            soaked, measured, seconds = Soaked(), Measured(), minutes * 60
            storm = Storm(Hand(system), accidents(system, seed_of_storm, seconds), screen.note)
            watching = asyncio.create_task(_watch(system, gauge, soaked))
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(storm.run())
                    group.create_task(
                        open_loop(scenario.act, rate=rate, clients=256, seconds=seconds, measured=measured)
                    )

                async def level() -> bool:
                    return (await gauge.look()).caught_up

                caught_up = await until(level, timeout=CATCH_UP, poll=0.5)
                await asyncio.sleep(2 * LOOK_EVERY)
            finally:
                watching.cancel()
                await asyncio.gather(watching, return_exceptions=True)
                scenario.close()
            tell(screen, Load(rate=rate, clients=256, seconds=seconds), measured)
            return _judge(screen, own.home, soaked, storm, caught_up=caught_up)

    return await until_stopped(live(), at_once=system.kill, tell=screen.note)


def accidents(system: System, seed_of_storm: int, seconds: float) -> list[Accident]:
    """One in every so many seconds, none of the broker's deaths."""
    everybody = targets(system)
    count = int(seconds / FAULT_EVERY)
    drawn = schedule(seed_of_storm, count, seconds, everybody)
    return [_another(accident, everybody) if accident.kind in CALM else accident for accident in drawn]


def _another(accident: Accident, everybody: Targets) -> Accident:
    victim = random.Random(accident.number).choice(list(everybody.services))  # noqa: S311 - a storm, not a secret
    return replace(accident, kind=Kind.KILL, target=victim)


async def _watch(system: System, gauge: Gauge, soaked: Soaked) -> None:
    started = time.monotonic()
    while True:
        at = time.monotonic() - started
        spent = await asyncio.to_thread(costs, system.supervisor.pids_by_name())
        try:
            depths = await gauge.look()
        except (OSError, RuntimeError):
            depths = None  # the database has just been hit
        soaked.looks.append(Look(at, spent, depths))
        await asyncio.sleep(LOOK_EVERY)


def _judge(screen: Screen, home: Path, soaked: Soaked, storm: Storm, *, caught_up: bool) -> int:
    names = [name for name in soaked.looks[-1].costs if name not in ("postgres", "kafka")]
    for file, title, unit, lines in _plots(soaked, names):
        (home / file).write_text(over_time(title, lines, unit=unit))
    (home / "soak.json").write_text(json.dumps([asdict(look) for look in soaked.looks]))
    problems = [] if caught_up else [f"not everybody had caught up {CATCH_UP:g} s after the load"]
    problems += grown(soaked, names)
    rows = [_row(soaked, name) for name in soaked.looks[-1].costs]
    screen.title("What grew", f"after {len(storm.struck)} faults; plots and figures in {home}")
    screen.rows(("  process", "MB first", "last", "MB/h", "descriptors first", "last"), rows, right=range(1, 6))
    screen.say("")
    screen.say(f"outboxes at the end {soaked.depth('outbox')[-1][1]:,.0f}, at most {_most(soaked, 'outbox'):,.0f}; ")
    screen.say(f"orders behind at the end {soaked.depth('behind')[-1][1]:,.0f}, at most {_most(soaked, 'behind'):,.0f}")
    for problem in problems:
        screen.plain(f"  ✗ {problem}")
    screen.say("something grew" if problems else "nothing grew")
    return int(bool(problems))


def grown(soaked: Soaked, names: Sequence[str]) -> list[str]:
    """Return the quantities that grew beyond warm-up and chance; a restarted process counts from its restart."""
    problems = []
    for name in names:
        memory, descriptors = _settled(soaked.line(name, "memory")), _settled(soaked.line(name, "descriptors"))
        if len(memory) < 4:
            continue
        before, after = _middle(memory[: len(memory) // 3 + 1]), _middle(memory[-len(memory) // 3 :])
        if after > before * (1 + GROWTH_OF_MEMORY):
            problems.append(f"{name} grew from {before / 1e6:,.0f} to {after / 1e6:,.0f} MB")
        more = _middle(descriptors[-3:]) - _middle(descriptors[:3])
        if more > GROWTH_OF_DESCRIPTORS:
            problems.append(f"{name} has {more:,.0f} more descriptors than at its start")
    return problems


def _settled(points: Sequence[tuple[float, float]]) -> list[float]:
    """Return the part after the warm-up."""
    start = points[-1][0] * WARM_UP if points else 0.0
    return [value for at, value in points if at >= start]


def _middle(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2] if values else 0.0


def _most(soaked: Soaked, what: str) -> float:
    return max(value for _, value in soaked.depth(what))


def _row(soaked: Soaked, name: str) -> tuple[str, ...]:
    memory, descriptors = soaked.line(name, "memory"), soaked.line(name, "descriptors")
    slope = growth(memory[int(len(memory) * WARM_UP) :]) * 3600 / 1e6
    return (
        f"  {name}",
        f"{memory[0][1] / 1e6:,.0f}",
        f"{memory[-1][1] / 1e6:,.0f}",
        f"{slope:+,.0f}",
        f"{descriptors[0][1]:,.0f}",
        f"{descriptors[-1][1]:,.0f}",
    )


def _plots(soaked: Soaked, names: Sequence[str]) -> list[tuple[str, str, str, list[Line]]]:
    memory = [Line(name, [(at, size / 1e6) for at, size in soaked.line(name, "memory")]) for name in names]
    descriptors = [Line(name, soaked.line(name, "descriptors")) for name in names]
    depths = [Line("outboxes", soaked.depth("outbox")), Line("orders behind", soaked.depth("behind"))]
    return [
        ("soak-memory.svg", "Memory by process", "MB", memory),
        ("soak-descriptors.svg", "Open descriptors by process", "", descriptors),
        ("soak-depths.svg", "Events unpublished, orders behind", "", depths),
        ("soak-inbox.svg", "Events applied, all inboxes", "", [Line("inboxes", soaked.depth("inbox"))]),
    ]
