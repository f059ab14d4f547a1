"""`make chaos-outbox`: break everything for a while, then prove from the histories that nothing was lost or doubled.

python -m tests.chaos.run --seed 7 --events 500000 --kills 100     the long run
python -m tests.chaos.run --strict --events 100000 --kills 30      the same in strict mode: and no repeats in the log
python -m tests.chaos.run --mutants                                that the checker catches each seeded bug
"""

import argparse
import asyncio
import bisect
import contextlib
import random
import shutil
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition
from tests.chaos import cluster
from tests.chaos.model import PARTITIONS, TOPIC
from tests.chaos.mutants import MUTANTS
from tests.chaos.nemesis import Nemesis
from tests.chaos.proxy import Proxy

from backstay.db import Database, DatabaseError
from backstay.dev.ports import free_port
from backstay.dev.program import stop
from backstay.messaging import KafkaBroker
from backstay.testing.history import Checker, Kind, Verdict, Written, read

SETTLE = 240.0  # seconds for everything to arrive when the faults are over
SETTLE_MUTANT = 25.0  # the same where something is expected to be lost
PASSWORD = "chaos"


@dataclass(frozen=True)
class Plan:
    """What a run is to be."""

    seed: int
    events: int
    kills: int
    interval: float
    rate: float
    brokers: int
    mutant: str = ""
    seconds: float = 900.0
    only: tuple[str, ...] = ()
    counts: tuple[int, int, int] = (3, 2, 3)  # writers, relays, consumers
    strict: bool = False  # relays publish by transactions: readers of what is committed see no repeats


class World:
    """All that runs, for one plan."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.chance = random.Random(plan.seed)
        self.nodes = cluster.brokers(folder, plan.brokers)
        self.postgres = cluster.database(folder / "database")
        self.routes = {kind: Proxy(free_port(), self.postgres.cluster.port) for kind in ("writer", "relay", "consumer")}
        self.children = cluster.Children()
        (folder / "history").mkdir()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        self.postgres.start()
        for node in self.nodes:
            node.start()
        try:
            await self.postgres.ready()
            self.postgres.cluster.create_databases({"aggregates": PASSWORD, "effects": PASSWORD})
            for proxy in (*self.routes.values(), *(node.proxy for node in self.nodes)):
                await proxy.start()
            for node in self.nodes:
                await node.ready()
            await self._create_topic()
            yield
        finally:
            await self._end()

    async def _create_topic(self) -> None:
        broker = KafkaBroker(self.inside, replication=len(self.nodes))
        for _ in range(30):
            with contextlib.suppress(Exception):
                await broker.create_topics({TOPIC: PARTITIONS})
                return
            await asyncio.sleep(1)
        raise RuntimeError("the brokers do not take a topic")

    async def _end(self) -> None:
        for child in self.children.all:
            child.wanted = False
            if child.is_alive():
                child.kill()
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.wait()
        if self.postgres.process is not None:
            await asyncio.to_thread(stop, self.postgres.process, self.postgres.cluster.program())
        for proxy in (*self.routes.values(), *(node.proxy for node in self.nodes)):
            await proxy.stop()

    @property
    def inside(self) -> str:
        """The brokers without the proxies."""
        return ",".join(node.kafka.bootstrap for node in self.nodes)

    def dsn(self, kind: str) -> str:
        name = "effects" if kind == "consumer" else "aggregates"
        return f"postgresql://{name}:{PASSWORD}@127.0.0.1:{self.routes[kind].port}/{name}"

    def populate(self) -> None:
        """Add the processes; `Children.watch` starts them."""
        proxied = ",".join(f"127.0.0.1:{node.proxy.port}" for node in self.nodes)
        for kind, count in zip(("writer", "relay", "consumer"), self.plan.counts, strict=True):
            for number in range(count):
                name = f"{kind}-{number}"
                environment = {
                    "CHAOS_NAME": name,
                    "CHAOS_FOLDER": str(self.folder),
                    "CHAOS_DSN": self.dsn(kind),
                    "CHAOS_BOOTSTRAP": proxied,
                    "CHAOS_SEED": str(self.chance.randrange(1 << 30)),
                    "CHAOS_MUTANT": self.plan.mutant,
                    "CHAOS_STRICT": "yes" if self.plan.strict else "",
                    "CHAOS_RATE": str(self.plan.rate / self.plan.counts[0]),
                }
                child = cluster.Child(name, environment, self.folder / f"{name}.log")
                self.children.all.append(child)

    def direct(self, name: str) -> Database:
        """A database without the proxy."""
        dsn = f"postgresql://{name}:{PASSWORD}@127.0.0.1:{self.postgres.cluster.port}/{name}"
        return Database(name, dsn=dsn, statement_timeout=300.0)


async def count(db: Database, table: str) -> int:
    """Rows; the last answer counts while the server is down."""
    with contextlib.suppress(DatabaseError):
        return int(await db.fetchval(f"SELECT count(*) FROM {table}", timeout=60.0))
    return -1


async def unleash(world: World, aggregates: Database) -> Nemesis:
    """Let everything run, and break, until the plan is fulfilled."""
    plan = world.plan

    async def steal(shards: list[int]) -> None:
        with contextlib.suppress(DatabaseError):
            await aggregates.execute(
                "UPDATE outbox_shards SET owner = NULL, lease_until = NULL, epoch = epoch + 1 WHERE shard = ANY ($1)",
                shards,
            )

    nemesis = Nemesis(
        world.chance, world.children, world.nodes, world.postgres, world.routes, plan.interval, steal, plan.only
    )
    breaking = asyncio.create_task(nemesis.run())
    began, written, told = time.monotonic(), 0, 0.0
    try:
        while written < plan.events or nemesis.kills < plan.kills:
            await asyncio.sleep(1.0)
            if time.monotonic() - told >= 10:
                told = time.monotonic()
                written = max(written, await count(aggregates, "written"))
                print(f"  {told - began:4.0f} s: {written:,} events, {nemesis.kills} kills", flush=True)
            if breaking.done():
                breaking.result()
            if time.monotonic() - began > plan.seconds:
                print("  the time is over", flush=True)
                break
    finally:
        await _finish(breaking)
        await nemesis.heal()
    return nemesis


async def _finish(breaking: "asyncio.Task[None]") -> None:
    """Cancel between two faults, so that what was killed is started again."""
    breaking.cancel()
    await asyncio.wait({breaking})


async def revive(world: World) -> None:
    """Start what the nemesis left dead."""
    if world.postgres.process is None or world.postgres.process.poll() is not None:
        world.postgres.start()
    await world.postgres.ready()
    for node in world.nodes:
        if node.process is None or node.process.poll() is not None:
            node.start()
        await node.ready()


async def settle(world: World, aggregates: Database, effects: Database) -> float:
    """Stop the writers, wait until all of it has arrived; returns the seconds that took."""
    began = time.monotonic()
    await asyncio.gather(*(child.end() for child in world.children.of("writer")))
    limit = SETTLE_MUTANT if world.plan.mutant else SETTLE
    moved, last = began, -1
    while time.monotonic() - began < limit:
        waiting, written = await count(aggregates, "outbox"), await count(aggregates, "written")
        done = await count(effects, "effects")
        if waiting == 0 and 0 <= written <= done:
            break
        if done != last:
            moved, last = time.monotonic(), done
        if world.plan.mutant and time.monotonic() - moved > 12:
            break
        await asyncio.sleep(0.5)
    print(f"  settled: {waiting} waiting, {written:,} written, {done:,} effects", flush=True)
    seconds = time.monotonic() - began
    await asyncio.gather(*(child.end() for child in world.children.all))
    return seconds


def read_log(bootstrap: str, checker: Checker) -> None:
    """Every record of the topic, partition by partition."""
    client = Consumer({"bootstrap.servers": bootstrap, "group.id": "judge", "enable.partition.eof": True})
    decode = msgspec.json.Decoder(dict[str, Any]).decode
    client.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
    open_ = set(range(PARTITIONS))
    deadline = time.monotonic() + 300
    while open_ and time.monotonic() < deadline:
        for message in client.consume(5000, 1.0):
            if (error := message.error()) is None:
                headers, data = dict(message.headers()), decode(message.value())
                checker.logged(Written(data["aggregate"], data["version"], headers["id"].decode()))
            elif error.code() == KafkaError._PARTITION_EOF:
                open_.discard(message.partition())
    client.close()
    if open_:
        raise RuntimeError(f"partitions {sorted(open_)} could not be read to their ends")


async def judge(world: World, aggregates: Database, effects: Database) -> tuple[Verdict, list[tuple[int, int]]]:
    """The verdict, and when each event was written and had its effect."""
    checker = Checker()
    for path in (world.folder / "history").iterdir():
        checker.take(read(path))
    checker.settle([str(row["id"]) for row in await aggregates.fetch("SELECT id FROM written", timeout=300)])
    await asyncio.to_thread(read_log, world.inside, checker)
    moments = []
    for row in await effects.fetch("SELECT * FROM effects ORDER BY seq", timeout=300):
        checker.effected(Written(row["aggregate"], row["version"], str(row["id"])))
        moments.append((row["written_at"], row["applied_at"]))
    return checker.verdict(), moments


def recovery(faults: list[tuple[str, float]], moments: list[tuple[int, int]]) -> dict[str, list[float]]:
    """Per kind of fault: seconds until all that was written up to a second after it had its effect."""
    moments.sort()
    starts = [written / 1e9 for written, _ in moments]
    latest, top = [], 0
    for _, applied in moments:
        top = max(top, applied)
        latest.append(top / 1e9)
    times: dict[str, list[float]] = {}
    for name, at in faults:
        index = bisect.bisect_right(starts, at + 1.0) - 1
        if index >= 0:
            times.setdefault(name, []).append(max(0.0, latest[index] - at))
    return times


async def run(plan: Plan, *, keep: bool = False) -> Verdict:
    """One run, from nothing to its verdict."""
    folder = Path("/tmp") / f"backstay-chaos-{uuid4().hex[:10]}"
    folder.mkdir(mode=0o755)
    world = World(plan, folder)
    began = time.monotonic()
    try:
        async with world.running():
            world.populate()
            watching = asyncio.create_task(world.children.watch())
            async with world.direct("aggregates") as aggregates, world.direct("effects") as effects:
                nemesis = await unleash(world, aggregates)
                await revive(world)
                seconds = await settle(world, aggregates, effects)
                watching.cancel()
                verdict, moments = await judge(world, aggregates, effects)
        report(plan, nemesis, verdict, recovery(nemesis.faults, moments), seconds, world)
        print(f"took {time.monotonic() - began:.0f} s")
        return verdict
    finally:
        if keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def report(
    plan: Plan, nemesis: Nemesis, verdict: Verdict, times: dict[str, list[float]], seconds: float, world: World
) -> None:
    what = f"mutant {plan.mutant}" if plan.mutant else "strict mode" if plan.strict else "the real thing"
    print(
        f"{what}, seed {plan.seed}, {plan.brokers} brokers, {'/'.join(map(str, plan.counts))} writers/relays/consumers"
    )
    print(f"faults: {nemesis.kills} kills, {nemesis.pauses} pauses; {dict(nemesis.counts)}")
    for name, values in sorted(times.items()):
        print(
            f"  {name:18} {len(values):4} ×, in effect after median {statistics.median(values):5.1f} s, "
            f"at most {max(values):5.1f} s"
        )
    if world.children.crashes:
        print(f"processes that ended by themselves: {world.children.crashes}")
    print(f"all had arrived {seconds:.1f} s after the last fault")
    print(verdict)


EXPECTED = {
    "ack-first": {Kind.LOST},
    "cursor": {Kind.LOST},
    "no-fence": {Kind.UNFENCED},
    "no-key-blocking": {Kind.DISORDER},
    "offset-first": {Kind.IDLE},
    "no-inbox": {Kind.TWICE},
    "dual-write": {Kind.INVENTED},
}
PROVOKING = {
    "ack-first": ("kill relay",),
    "cursor": ("kill consumer",),
    "no-fence": ("pause relay", "steal leases"),
    "no-key-blocking": ("kill consumer",),
    "offset-first": ("kill consumer",),
    "no-inbox": ("kill consumer", "kill relay"),
    "dual-write": ("kill relay",),
}


async def run_mutants(seed: int, names: list[str]) -> bool:
    """Each seeded bug, on one broker, with the faults that bring it out; True if each was caught."""
    caught = {}
    for name in names:
        plan = Plan(seed, 8000, 0, 1.2, 1500.0, 1, mutant=name, only=PROVOKING[name], counts=(2, 2, 2), seconds=20.0)
        verdict = await run(plan)
        caught[name] = bool(EXPECTED[name] & set(verdict.violations))
        print(f"=== {name}: {'caught' if caught[name] else 'NOT CAUGHT'}\n", flush=True)
    print(f"seeded bugs caught: {sum(caught.values())} of {len(caught)}")
    return all(caught.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--interval", type=float, default=2.5)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--brokers", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--mutant", choices=[*MUTANTS, "flaky", ""], default="")
    parser.add_argument("--mutants", nargs="*", choices=MUTANTS)
    parser.add_argument("--strict", action="store_true")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    if given.mutants is not None:
        good = asyncio.run(run_mutants(given.seed, given.mutants or list(MUTANTS)))
    else:
        plan = Plan(
            given.seed,
            given.events,
            given.kills,
            given.interval,
            given.rate,
            given.brokers,
            given.mutant,
            given.seconds,
            strict=given.strict,
        )
        verdict = asyncio.run(run(plan, keep=given.keep))
        good = verdict.holds and not (plan.strict and verdict.repeats)
    sys.exit(not good)


if __name__ == "__main__":
    main()
