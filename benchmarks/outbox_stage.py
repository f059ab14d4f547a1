"""What the outbox benchmark stands on: Apache Kafka, PostgreSQL, relays as processes, Debezium, and measuring them."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import debezium
from backstay.db import Database
from backstay.dev import apache, postgres
from backstay.dev.ports import free_port
from backstay.dev.program import Program, spawn, stop, wait_until
from backstay.outbox import Outbox, empty_at_once

PARTITIONS = 6
KEYS = 5000
CHUNK = 1000  # events of one transaction in a backlog
WORKER = Path(__file__).with_name("outbox_worker.py")
SETTINGS = {
    "wal_level": "logical",
    "max_replication_slots": "20",
    "max_wal_senders": "20",
    "max_wal_size": "4GB",
    "shared_buffers": "256MB",
}
FILL = """DO $$ BEGIN FOR chunk IN {first}..{last} LOOP
INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload, tracingspancontext)
SELECT gen_random_uuid(), '{topic}', md5((n % {keys})::text)::uuid::text, 'order.created',
       jsonb_build_object('n', n, 'note', repeat('x', 240)),
       'traceparent=00-' || md5(n::text) || '-00f067aa0ba902b7-01'
FROM generate_series(chunk * {chunk}, (chunk + 1) * {chunk} - 1) AS n ORDER BY n;
COMMIT; END LOOP; END $$"""


@dataclass(frozen=True, slots=True)
class Drain:
    """How fast a backlog went: events a second (whole, first and last fifth), CPU µs an event, memory at most."""

    rate: float
    first: float
    last: float
    cpu: float
    peak: float
    statements: float = 0.0
    dead: float = 0.0
    wal: float = 0.0


class Running:
    """A process of ours."""

    def __init__(self, program: Program) -> None:
        self.program, self.process = program, spawn(program)
        self.born = time.monotonic()

    @property
    def pid(self) -> int:
        """Its id."""
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of CPU so far."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)

    def peak(self) -> float:
        """Resident MB at most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024

    def stop(self) -> Any:
        """End it; returns the JSON it printed last, if it is a worker of ours."""
        stop(self.process, self.program)
        if self.program.name == "debezium":
            return None
        lines = [line for line in self.program.log.read_text().splitlines() if line.startswith(("{", "["))]
        assert lines, f"{self.program.name} has ended: {self.program.log.read_text()[-2000:]}"
        return json.loads(lines[-1])

    def wait(self, timeout: float) -> Any:
        """Its JSON when it has ended by itself."""
        self.process.wait(timeout)
        return self.stop()


class Stage:
    """See the module; everything lives in `folder` and ends with `running`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names = count(1)
        self.node = apache.create(folder / "kafka", log=folder / "kafka.log")
        self.cluster = postgres.create(folder / "pg", port=free_port(), log=folder / "pg.log", settings=SETTINGS)

    def database(self, *, emptied: bool = False) -> str:
        """A fresh database with our tables; its name is its owner's. Emptied: rows go only through the log."""
        name = f"bench_{next(self._names)}"
        self.cluster.create_databases({name: name})
        self.cluster.run_sql(f"ALTER ROLE {name} REPLICATION")
        asyncio.run(self._make(name, emptied=emptied))
        return name

    async def _make(self, name: str, *, emptied: bool) -> None:
        db = Database(name, dsn=self.dsn(name))
        Outbox(db)
        async with db:
            if emptied:
                await empty_at_once(db)

    def dsn(self, name: str) -> str:
        """Its address."""
        return self.cluster.dsn(name, name, name)

    def drop(self, name: str) -> None:
        """Drop a database and its slots."""
        for _ in range(50):
            try:
                self.cluster.run_sql(
                    f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{name}'"
                )
                break
            except postgres.PostgresError:
                time.sleep(0.2)
        self.cluster.drop_databases([name])

    def sql(self, name: str, text: str) -> str:
        """Run as the owner of everything."""
        return self.cluster.run_sql(f"SET ROLE {name};\n{text}", name)

    def fill(self, name: str, topic: str, events: int, *, start: int = 0, whole: bool = False) -> None:
        """Commit a backlog, by transactions of a thousand, or as one."""
        chunk = events if whole else CHUNK
        first = start // chunk
        step = max(1, 500_000 // chunk)
        for at in range(first, first + events // chunk, step):
            last = min(first + events // chunk, at + step) - 1
            self.sql(name, FILL.format(first=at, last=last, topic=topic, keys=KEYS, chunk=chunk))

    def topic(self) -> str:
        """A fresh topic."""
        name = f"orders-{next(self._names)}"
        admin = AdminClient({"bootstrap.servers": self.node.bootstrap})
        admin.create_topics([NewTopic(name, PARTITIONS, 1)])[name].result(30)
        return name

    def worker(self, what: str, **task: Any) -> Running:
        """A process of `outbox_worker`."""
        argv = (sys.executable, str(WORKER), what, json.dumps(task))
        log = self.folder / f"{what}-{next(self._names)}.log"
        return Running(Program(name=what, argv=argv, log=log, env=dict(os.environ), patience=20.0))

    def relay(self, name: str, *, wal: bool = False, relay: str = "one") -> Running:
        """Our relay."""
        return self.worker("relay", name=name, dsn=self.dsn(name), kafka=self.node.bootstrap, wal=wal, relay=relay)

    def debezium(self, name: str) -> Running:
        """Debezium on the same table."""
        debezium.fetch()
        self.sql(name, "CREATE PUBLICATION backstay_outbox FOR TABLE outbox WITH (publish = 'insert')")
        folder = self.folder / f"debezium-{next(self._names)}"
        return Running(debezium.program(folder, kafka=self.node.bootstrap, dsn=self.dsn(name), slot=f"{name}_debezium"))

    def verify(self, topic: str, events: int) -> tuple[int, int]:
        """Read the whole topic: order of first occurrences per key is asserted; returns distinct and repeated."""
        client = Consumer({"bootstrap.servers": self.node.bootstrap, "group.id": "verify", "enable.auto.commit": False})
        client.assign([TopicPartition(topic, n, 0) for n in range(PARTITIONS)])
        total, last, seen, repeats = self.watch(topic).total(), defaultdict(lambda: -1), set[int](), 0
        got = 0
        while got < total:
            for message in client.consume(5000, 5.0):
                got += 1
                n = int(message.value().split(b'"n": ')[1].split(b",")[0].rstrip(b"}"))
                if n in seen:
                    repeats += 1
                    continue
                assert n > last[message.key()], f"order of {message.key()!r}: {n} after {last[message.key()]}"
                last[message.key()] = n
                seen.add(n)
        client.close()
        assert len(seen) >= events, f"{len(seen)} of {events} events came"
        return len(seen), repeats

    def watch(self, topic: str) -> "Watch":
        """The growth of a topic."""
        return Watch(self.node.bootstrap, topic)

    def counters(self, name: str) -> tuple[int, int, int]:
        """Transactions committed, rows updated or deleted, and the position in the log."""
        text = self.cluster.run_sql(
            "SELECT pg_stat_force_next_flush(); SELECT pg_stat_clear_snapshot();"
            f"SELECT (SELECT xact_commit FROM pg_stat_database WHERE datname = '{name}'),"
            " (SELECT sum(n_tup_upd + n_tup_del) FROM pg_stat_user_tables),"
            " pg_current_wal_lsn() - '0/0'::pg_lsn",
            name,
        )
        first, second, third = text.splitlines()[-1].split("|")
        return int(first), int(second or 0), int(third)


class Watch:
    """A topic's number of records, by its watermarks."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._client = Consumer({"bootstrap.servers": bootstrap, "group.id": "watch"})
        self._parts = [TopicPartition(topic, n) for n in range(PARTITIONS)]

    def total(self) -> int:
        """Now; a fresh topic's leaders may need a moment."""
        for _ in range(100):
            try:
                return sum(self._client.get_watermark_offsets(part, timeout=10)[1] for part in self._parts)
            except KafkaException:
                time.sleep(0.1)
        raise TimeoutError("the broker doesn't tell a topic's watermarks")

    def until(self, wanted: int, timeout: float, first: Callable[[], object] = lambda: None) -> list[tuple[float, int]]:
        """Look every 50 ms until so many are there; returns what was seen from the first growth on, `first` told."""
        start, seen, deadline = self.total(), [], time.monotonic() + timeout
        while True:
            found, now = self.total(), time.monotonic()
            if found > start or seen:
                if not seen:
                    first()
                seen.append((now, found))
            if found >= wanted:
                return seen
            assert now < deadline, f"{found} of {wanted} records after {timeout:g} s"
            time.sleep(0.05)


def rates(seen: list[tuple[float, int]]) -> tuple[float, float, float]:
    """Records a second: whole, first fifth, last fifth."""

    def between(low: float, high: float) -> float:
        first, last = seen[0][1], seen[-1][1]
        some = [one for one in seen if low <= (one[1] - first) / max(1, last - first) <= high]
        if len(some) < 2:
            return 0.0
        return (some[-1][1] - some[0][1]) / max(1e-9, some[-1][0] - some[0][0])

    return between(0, 1), between(0, 0.2), between(0.8, 1)


@contextmanager
def running() -> Iterator[Stage]:
    """Kafka and PostgreSQL, from their start to their end."""
    folder = Path(tempfile.mkdtemp(prefix="backstay-bench-", dir="/tmp"))
    folder.chmod(0o755)
    apache.fetch()
    stage = Stage(folder)
    started = [(program, spawn(program)) for program in (stage.node.program(), stage.cluster.program())]
    try:
        for (program, process), ready in zip(started, (stage.node.is_ready, stage.cluster.is_ready), strict=True):
            wait_until(ready, process, program, timeout=60)
        yield stage
    finally:
        for program, process in started:
            stop(process, program)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def paused(one: Running) -> Iterator[None]:
    """It stands still meanwhile."""
    children = subprocess.run(["pgrep", "-P", str(one.pid)], capture_output=True, text=True, check=False).stdout.split()
    pids = [one.pid, *map(int, children)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
