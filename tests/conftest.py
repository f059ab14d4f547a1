"""What tests share besides the fixtures of `backstay.dev.pytest_plugin`: `postgres`, `database` and `kafka`."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import structlog
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from backstay.dev import Kafka, Postgres, apache
from backstay.dev.postgres import Cluster
from backstay.dev.pytest_plugin import begin_kafka
from backstay.dev.servers import default_flavor

pytest_plugins = ("tests.world", "tests.secured_kafka", "tests.pacing", "tests.interrupts")


def pytest_report_header() -> str:
    return f"broker: {describe()}; database: embedded PostgreSQL"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"Broker of this run: {describe()}.")


def describe() -> str:
    if default_flavor() == "apache":
        return f"Apache Kafka {apache.VERSION}"
    return "the embedded broker (no Java and Maven here)"


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
        start_kafka(session.config)


def start_kafka(config: pytest.Config) -> Kafka:
    """The broker of this pytest process, started by the first call."""
    if default_flavor() == "apache":
        apache.fetch()
        apache.make_archive(exercise)  # halves its start
    return begin_kafka(config)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A service that was started in this process has configured its logs: the next test finds none of that."""
    yield
    if structlog.is_configured():
        root = logging.getLogger()
        for handler in root.handlers[:]:
            if isinstance(handler.formatter, structlog.stdlib.ProcessorFormatter):
                root.removeHandler(handler)
        root.setLevel(logging.WARNING)
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def postgres_folder() -> Iterator[Path]:
    """A folder for other clusters: pytest's temporary one is private, and a server may run as another account."""
    folder = Path("/tmp") / f"backstay-tests-{uuid4().hex[:12]}"
    folder.mkdir()
    folder.chmod(0o755)  # whatever the umask is
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_cluster(postgres: Postgres) -> Cluster:
    """The cluster of this pytest process."""
    return postgres.cluster


@pytest.fixture(scope="session")
def logical() -> Iterator[Cluster]:
    """A second PostgreSQL, with logical decoding."""
    with Postgres(settings={"wal_level": "logical", "max_replication_slots": "20", "max_wal_senders": "20"}) as server:
        yield server.cluster


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Kafka:
    """A running, warmed broker of this pytest process; `flavor` says which kind."""
    broker = start_kafka(request.config).wait()  # a test that asks for it by name only starts it here
    exercise(broker.bootstrap)
    return broker


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
