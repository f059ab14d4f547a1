"""The machines of the chaos: three brokers, a PostgreSQL, the proxies before them, and the processes under test."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.proxy import Proxy

from backstay.dev import apache, postgres
from backstay.dev.ports import HOST, free_port
from backstay.dev.postgres import Cluster
from backstay.dev.program import Program, kill_session, spawn, stop, wait_until

ROOT = Path(__file__).parents[2]
PG_SETTINGS = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_wal_size": "2GB"}
PROPERTIES = """process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller},PROXIED://{host}:{inside}
advertised.listeners=PLAINTEXT://{host}:{port},PROXIED://{host}:{outside}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions=1
default.replication.factor={replicas}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={replicas}
offsets.topic.num.partitions=1
transaction.state.log.replication.factor={replicas}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor={replicas}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=300
unclean.leader.election.enable=false
log.cleaner.enable=false
log.retention.ms=-1
auto.create.topics.enable=false
"""


@dataclass
class Node:
    """A broker that can die and return with its data."""

    kafka: apache.Kafka
    proxy: Proxy
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = spawn(self.kafka.program())

    async def ready(self) -> None:
        assert self.process is not None
        await asyncio.to_thread(wait_until, self.kafka.is_ready, self.process, self.kafka.program(), timeout=60)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


def brokers(folder: Path, count: int) -> list[Node]:
    """So many brokers of one cluster, formatted, each behind a proxy."""
    apache.fetch()
    home = apache.default_cache() / f"kafka-{apache.VERSION}"
    nodes = [
        Node(
            apache.Kafka(folder / f"broker-{n}", free_port(), free_port(), home, folder / f"broker-{n}.log", None),
            Proxy(free_port(), free_port()),
        )
        for n in range(1, count + 1)
    ]
    voters = ",".join(f"{n}@{HOST}:{node.kafka.controller}" for n, node in enumerate(nodes, 1))
    for n, node in enumerate(nodes, 1):
        kafka = node.kafka
        kafka.folder.mkdir(parents=True)
        (kafka.folder / "server.properties").write_text(
            PROPERTIES.format(
                node=n,
                voters=voters,
                host=HOST,
                port=kafka.port,
                controller=kafka.controller,
                inside=node.proxy.target,
                outside=node.proxy.port,
                data=kafka.folder / "data",
                replicas=count,
                in_sync=min(2, count),
            )
        )
        apache._format(kafka)
    return nodes


@dataclass
class Postgres:
    """The database server, which dies at once and recovers."""

    cluster: Cluster
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = spawn(self.cluster.program())

    async def ready(self) -> None:
        assert self.process is not None
        await asyncio.to_thread(wait_until, self.cluster.is_ready, self.process, self.cluster.program(), timeout=60)

    async def crash(self) -> None:
        """Immediate shutdown: no goodbye, recovery from the log at the next start."""
        assert self.process is not None
        self.process.send_signal(signal.SIGQUIT)
        await asyncio.to_thread(self.process.wait, 30)


def database(folder: Path) -> Postgres:
    folder.mkdir(parents=True)
    return Postgres(postgres.create(folder / "pg", port=free_port(), log=folder / "postgres.log", settings=PG_SETTINGS))


@dataclass
class Child:
    """A process under test: started again whenever it is dead and wanted."""

    name: str
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    wanted: bool = True
    starts: int = 0
    stopped: bool = field(default=False)

    @property
    def kind(self) -> str:
        return self.name.rpartition("-")[0]

    def program(self) -> Program:
        argv = (sys.executable, "-m", f"tests.chaos.{self.kind}")
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", **self.environment}
        return Program(name=self.name, argv=argv, log=self.log, env=environment, cwd=ROOT, patience=30.0)

    def start(self) -> None:
        self.starts += 1
        self.process = spawn(self.program())

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        assert self.process is not None
        kill_session(self.process.pid)
        self.process.wait()

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def end(self) -> None:
        """Orderly."""
        self.wanted = False
        if self.process is not None:
            await asyncio.to_thread(stop, self.process, self.program())


class Children:
    """Keeps the processes alive."""

    def __init__(self) -> None:
        self.all: list[Child] = []
        self.crashes: list[str] = []
        self.expected: set[str] = set()

    def of(self, kind: str) -> list[Child]:
        return [child for child in self.all if child.kind == kind]

    async def watch(self) -> None:
        while True:
            for child in self.all:
                if child.wanted and not child.is_alive():
                    if child.starts and child.name not in self.expected:
                        self.crashes.append(f"{child.name} at {time.monotonic():.1f}")
                    self.expected.discard(child.name)
                    child.start()
            await asyncio.sleep(0.1)

    def kill(self, child: Child) -> None:
        self.expected.add(child.name)
        child.kill()
