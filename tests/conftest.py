"""What tests share: an embedded PostgreSQL and a broker, one of each per pytest process, gone when it ends."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Literal
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from backstay.dev import apache, postgres, tansu
from backstay.dev.ports import free_port, is_open
from backstay.dev.postgres import Cluster
from backstay.dev.program import Program, spawn, stop, wait_until
from backstay.testing import scaled

pytest_plugins = ("tests.world", "tests.secured_kafka", "tests.pacing", "tests.interrupts")

FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Tests kill processes, never the machine: what reached the operating system survives that."""


@dataclass(frozen=True, slots=True)
class Postgres:
    """A running embedded PostgreSQL."""

    cluster: Cluster

    def dsn(self, database: str = "postgres", user: str = "postgres", password: str | None = None) -> str:
        """The URL of a database, as the superuser unless another role is named."""
        return self.cluster.dsn(database, user, password)


@dataclass(frozen=True, slots=True)
class KafkaForTests:
    """A running broker."""

    bootstrap: str
    flavor: Literal["apache", "embedded"]


def flavor() -> Literal["apache", "embedded"]:
    """Apache Kafka where Java and Maven are there, else the embedded broker."""
    return "apache" if apache.is_available() else "embedded"


def pytest_report_header() -> str:
    return f"broker: {describe()}; database: embedded PostgreSQL"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"Broker of this run: {describe()}.")


def describe() -> str:
    return f"Apache Kafka {apache.VERSION}" if flavor() == "apache" else "the embedded broker (no Java and Maven here)"


def pytest_collection_finish(session: pytest.Session) -> None:
    """A group that is spread over the workers would have each of them start what one should share."""
    if not getattr(session.config.option, "loadgroup", False):
        return
    spread = [
        item.nodeid for item in session.items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid
    ]
    if spread:
        raise pytest.UsageError(f"pytest-xdist keeps no groups together with this pytest: {spread[0]}")


@pytest.hookimpl(tryfirst=True)  # a worker of pytest-xdist runs the loop itself
def pytest_runtestloop(session: pytest.Session) -> None:
    """Start the broker before the first test if one of them needs it: it boots while the others run."""
    if any("kafka" in getattr(item, "fixturenames", ()) for item in session.items):
        session_broker(session.config)


def session_broker(config: pytest.Config) -> "Broker":
    """The broker of this pytest process, started by the first call."""
    broker = config.stash.get(BROKER, None)
    if broker is None:
        broker = config.stash[BROKER] = start_broker(Path(tempfile.mkdtemp(prefix="backstay-broker-")))
    return broker


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the broker, also when its fixture was never asked for."""
    broker = session.config.stash.get(BROKER, None)
    if broker is not None:
        broker.stop()


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """Not pytest's temporary folder: that one is private to us, and the server may have to run as somebody else."""
    folder = Path("/tmp") / f"backstay-tests-{uuid4().hex[:12]}"
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask is
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster(postgres_folder: Path) -> Iterator[Cluster]:
    cluster = postgres.create(
        postgres_folder / "pg", port=free_port(), log=postgres_folder / "postgres.log", settings=FAST
    )
    with running(cluster.program(), cluster) as _:
        yield cluster


@pytest.fixture(scope="session", name="postgres")
def postgres_fixture(postgres_cluster: Cluster) -> Postgres:
    """A running embedded PostgreSQL of this pytest process."""
    return Postgres(postgres_cluster)


@pytest.fixture(scope="session")
def logical(postgres_folder: Path) -> Iterator[Cluster]:
    """A second PostgreSQL, with logical decoding."""
    settings = {**FAST, "wal_level": "logical", "max_replication_slots": "20", "max_wal_senders": "20"}
    cluster = postgres.create(
        postgres_folder / "logical", port=free_port(), log=postgres_folder / "logical.log", settings=settings
    )
    with running(cluster.program(), cluster):
        yield cluster


_databases = count(1)


@pytest.fixture
def database(postgres_cluster: Cluster) -> Iterator[str]:
    """The DSN of a fresh empty database with an owner of its own; dropped afterwards."""
    name = f"test_{next(_databases)}"
    postgres_cluster.create_databases({name: "secret"})
    yield postgres_cluster.dsn(name, name, "secret")
    postgres_cluster.drop_databases([name])


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> KafkaForTests:
    """A running, warmed broker of this pytest process; `flavor` says which kind."""
    broker = session_broker(request.config)  # a test that asks for it by name only (`getfixturevalue`) starts it here
    broker.wait_until_ready()
    exercise(broker.bootstrap)
    return KafkaForTests(broker.bootstrap, flavor())


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker from its start to its end."""

    bootstrap: str
    program: Program
    what: "apache.Kafka | Port"
    folder: Path
    process: subprocess.Popen[bytes]

    def wait_until_ready(self) -> None:
        wait_until(self.what.is_ready, self.process, self.program, timeout=scaled(60.0))

    def stop(self) -> None:
        stop(self.process, self.program)
        shutil.rmtree(self.folder, ignore_errors=True)


BROKER: pytest.StashKey[Broker] = pytest.StashKey()


def start_broker(folder: Path) -> Broker:
    """Start a broker without waiting for it."""
    what: apache.Kafka | Port
    if flavor() == "apache":
        apache.fetch()
        apache.make_archive(exercise)
        node = apache.create(folder / "node", log=folder / "kafka.log")
        bootstrap, program, what = node.bootstrap, node.program(), node
    else:
        port = free_port()
        bootstrap, program, what = f"127.0.0.1:{port}", tansu.program(port, folder / "kafka.log"), Port(port)
    return Broker(bootstrap, program, what, folder, spawn(program))


@dataclass(frozen=True, slots=True)
class Port:
    """Ready when it is open."""

    number: int

    def is_ready(self) -> bool:
        return is_open(self.number)


class running:
    """A program from its readiness to its end."""

    def __init__(self, program: Program, what: Cluster | apache.Kafka | Port) -> None:
        self._program, self._what = program, what

    def __enter__(self) -> subprocess.Popen[bytes]:
        self._process = spawn(self._program)
        try:
            wait_until(self._what.is_ready, self._process, self._program, timeout=scaled(60.0))
        except BaseException:
            stop(self._process, self._program)
            raise
        return self._process

    def __exit__(self, *_: object) -> None:
        stop(self._process, self._program)


def exercise(bootstrap: str) -> None:
    """A topic, an idempotent message, a consumer group: what is slow on a broker's first time happens here."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    for created in admin.create_topics([NewTopic("warm", 1, 1)]).values():
        created.result(timeout=30)
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
    producer.produce("warm", b"up", key=b"k")
    producer.flush(30)
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "warm",
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 500,
        }
    )
    consumer.subscribe(["warm"])
    try:
        assert consumer.poll(30) is not None, "the broker didn't hand back what it acknowledged"
    finally:
        consumer.close()
