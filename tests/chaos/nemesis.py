"""The one who breaks things: faults in random order, at random moments, all from one seed."""

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from tests.chaos.cluster import Child, Children, Node, Postgres
from tests.chaos.proxy import Proxy


@dataclass
class Nemesis:
    """Owns every fault. `interval`: mean seconds between two."""

    chance: random.Random
    children: Children
    nodes: Sequence[Node]
    postgres: Postgres
    routes: dict[str, Proxy]  # kind of process → its way to the database
    interval: float
    steal: Callable[[list[int]], Awaitable[None]]
    only: tuple[str, ...] = ()
    faults: list[tuple[str, float]] = field(default_factory=list)
    kills: int = 0
    pauses: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """For ever; cancel it, then `heal`."""
        weights = {
            "kill relay": 22,
            "kill consumer": 22,
            "kill writer": 10,
            "kill broker": 5 if len(self.nodes) > 1 else 0,
            "crash postgres": 4,
            "pause relay": 10,
            "pause consumer": 8,
            "pause writer": 2,
            "pause broker": 2 if len(self.nodes) > 1 else 0,
            "cut kafka": 4,
            "swallow kafka": 3,
            "slow kafka": 2,
            "cut database": 4,
            "swallow database": 4,
            "steal leases": 8,
        }
        names = [name for name in weights if not self.only or name in self.only]
        while True:
            await asyncio.sleep(min(self.chance.expovariate(1 / self.interval), self.interval * 3))
            name = self.chance.choices(names, [weights[name] for name in names])[0]
            self.counts[name] += 1
            self.faults.append((name, time.monotonic()))
            verb, _, target = name.partition(" ")
            await getattr(self, f"_{verb}")(target)

    async def heal(self) -> None:
        for node in self.nodes:
            node.proxy.heal()
            if node.process is not None:
                node.process.send_signal(signal.SIGCONT)
        for proxy in self.routes.values():
            proxy.heal()
        for child in self.children.all:
            if child.stopped:
                child.signal(signal.SIGCONT)
                child.stopped = False

    def _one(self, kind: str) -> Child | None:
        alive = [child for child in self.children.of(kind) if child.is_alive() and not child.stopped]
        return self.chance.choice(alive) if alive else None

    async def _kill(self, target: str) -> None:
        if target == "broker":
            await self._kill_broker()
        elif (child := self._one(target)) is not None:
            self.children.kill(child)
            self.kills += 1

    async def _kill_broker(self) -> None:
        node = self.chance.choice(self.nodes)
        node.kill()
        self.kills += 1
        await asyncio.sleep(self.chance.uniform(1.0, 4.0))
        node.start()
        await node.ready()
        await asyncio.sleep(3.0)  # it has to catch up before another may die

    async def _crash(self, _: str) -> None:
        await self.postgres.crash()
        self.kills += 1
        await asyncio.sleep(self.chance.uniform(0.0, 1.5))
        self.postgres.start()
        await self.postgres.ready()

    async def _pause(self, target: str) -> None:
        self.pauses += 1
        seconds = self.chance.choice((0.5, 2.0, 4.0, 8.0))  # shorter and longer than a lease and a session
        if target == "broker":
            process = self.chance.choice(self.nodes).process
            assert process is not None
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(min(seconds, 4.0))
            process.send_signal(signal.SIGCONT)
        elif (child := self._one(target)) is not None:
            child.signal(signal.SIGSTOP)
            child.stopped = True
            asyncio.get_running_loop().call_later(seconds, self._continue, child)

    def _continue(self, child: Child) -> None:
        if child.stopped:
            child.stopped = False
            if child.is_alive():
                child.signal(signal.SIGCONT)

    def _proxies(self, target: str) -> list[Proxy]:
        if target == "kafka":
            return self.chance.sample([node.proxy for node in self.nodes], self.chance.randint(1, len(self.nodes)))
        return [self.chance.choice(list(self.routes.values()))]

    async def _cut(self, target: str) -> None:
        for proxy in self._proxies(target):
            if self.chance.random() < 0.5:
                proxy.cut()
            else:
                proxy.refuse()
                asyncio.get_running_loop().call_later(self.chance.uniform(0.5, 3.0), proxy.heal)

    async def _swallow(self, target: str) -> None:
        for proxy in self._proxies(target):
            proxy.swallow()
            asyncio.get_running_loop().call_later(self.chance.uniform(1.0, 9.0), proxy.heal)

    async def _slow(self, target: str) -> None:
        for proxy in self._proxies(target):
            proxy.slow(self.chance.uniform(0.01, 0.1))
            asyncio.get_running_loop().call_later(self.chance.uniform(1.0, 3.0), proxy.heal)

    async def _steal(self, _: str) -> None:
        await self.steal(self.chance.sample(range(64), 24))
