"""A real Apache Kafka on this machine: one node in KRaft mode, its jars from Maven, run by the machine's Java.

Jars and the class archive (which halves its start) are made once and kept in a cache folder that several systems share.
"""

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from backstay.dev.ports import HOST, free_port, is_open
from backstay.dev.program import Program, helping, run, spawn, stop, wait_until

VERSION = "4.4.0"
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
JAVA_OPTIONS = (
    "-Xmx192m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)
READY_TIMEOUT = 60.0  # seconds
MAVEN_TIMEOUT = 600.0  # seconds, 45 MB the first time
ARCHIVE = "classes.jsa"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>backstay</groupId><artifactId>kafka</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
PROPERTIES = """process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller}{listeners}
advertised.listeners=PLAINTEXT://{host}:{port}{advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.enable=false
log.retention.ms=-1
auto.create.topics.enable=false
"""


class KafkaError(RuntimeError):
    """Apache Kafka could not be fetched, formatted or started; the message carries its own words."""


def default_cache() -> Path:
    """Return the repository's ignored folder for what was fetched once; `BACKSTAY_CACHE` names another."""
    return Path(os.environ.get("BACKSTAY_CACHE") or Path(__file__).parents[3] / ".cache")


def missing_programs() -> list[str]:
    """Return what the machine lacks: a Java, and a Maven unless the jars were fetched before."""
    wanted = ["java"] if _jars_are_there(default_cache()) else ["java", "mvn"]
    return [program for program in wanted if not shutil.which(program)]


def is_available() -> bool:
    """Return whether the machine has what it takes."""
    return not missing_programs()


def is_fetched(cache: Path | None = None) -> bool:
    """Return whether the jars are in the cache."""
    return _jars_are_there(cache or default_cache())


def has_archive(cache: Path | None = None) -> bool:
    """Return whether the class archive is in the cache."""
    return ((cache or default_cache()) / f"kafka-{VERSION}" / ARCHIVE).exists()


@dataclass(frozen=True, slots=True)
class Kafka:
    """One node's folder and ports. A port for a fault proxy adds a listener that advertises the proxy's address."""

    folder: Path
    port: int
    controller: int
    cache: Path
    log: Path
    proxied: tuple[int, int] | None = None
    """(port the broker listens on for the proxy, port of the proxy it advertises there)."""

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.port}"

    def program(self) -> Program:
        """Return the broker in the foreground; the class archive is used when it is there."""
        archive = self.cache / ARCHIVE
        return self._java("kafka", *([f"-XX:SharedArchiveFile={archive}", "-Xshare:auto"] if archive.exists() else []))

    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        return is_open(self.port)

    def _java(self, name: str, *options: str) -> Program:
        argv = ("java", *JAVA_OPTIONS, *options, "-cp", _class_path(self.cache), "kafka.Kafka", str(self._properties))
        return Program(name=name, argv=argv, log=self.log, env=_environment(), cwd=self.folder, patience=20.0)

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _write_properties(self) -> None:
        inside, outside = self.proxied or (0, 0)
        self._properties.write_text(
            PROPERTIES.format(
                host=HOST,
                port=self.port,
                controller=self.controller,
                data=self.folder / "data",
                listeners=f",PROXIED://{HOST}:{inside}" if self.proxied else "",
                advertised=f",PROXIED://{HOST}:{outside}" if self.proxied else "",
            )
        )


def create(
    folder: Path,
    *,
    log: Path,
    port: int | None = None,
    cache: Path | None = None,
    proxied: tuple[int, int] | None = None,
) -> Kafka:
    """Return a node in `folder`, formatted unless it was; its jars must be in the cache (see `fetch`)."""
    folder.mkdir(parents=True, exist_ok=True)
    home = (cache or default_cache()) / f"kafka-{VERSION}"
    kafka = Kafka(folder.resolve(), port or free_port(), free_port(), home, log, proxied)
    kafka._write_properties()
    if not (kafka.folder / "data" / "meta.properties").exists():
        _format(kafka)
    return kafka


def fetch(cache: Path | None = None) -> None:
    """Fetch the jars by Maven, once; concurrent calls of several processes are safe."""
    base = cache or default_cache()
    with _one_at_a_time(base):
        if not _jars_are_there(base):
            _fetch(base / f"kafka-{VERSION}")


def make_archive(exercise: Callable[[str], None], cache: Path | None = None) -> None:
    """The class archive, once: a broker is started, `exercise(bootstrap)` used on it, and it is stopped."""
    base = cache or default_cache()
    with _one_at_a_time(base):
        home = base / f"kafka-{VERSION}"
        if not (home / ARCHIVE).exists():
            _make_archive(home, base, exercise)


def _make_archive(home: Path, base: Path, exercise: Callable[[str], None]) -> None:
    scratch, half = home / "scratch", home / f"{ARCHIVE}.new"
    shutil.rmtree(scratch, ignore_errors=True)
    kafka = create(scratch, log=home / "archive.log", cache=base)
    program = kafka._java("kafka", f"-XX:ArchiveClassesAtExit={half}")
    process = spawn(program)
    try:
        with helping(process):
            wait_until(kafka.is_ready, process, program, timeout=READY_TIMEOUT)
            exercise(kafka.bootstrap)
            stop(process, program)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if half.exists():
        half.rename(home / ARCHIVE)


def _fetch(home: Path) -> None:
    half = home / "libs.new"
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    (home / "pom.xml").write_text(POM)
    argv = ["mvn", "-B", "-q", "-ntp", "-f", str(home / "pom.xml"), "dependency:copy-dependencies"]
    argv += [f"-DoutputDirectory={half}", "-DincludeScope=runtime"]
    done = run(argv, timeout=MAVEN_TIMEOUT)
    if done.returncode:
        shutil.rmtree(half, ignore_errors=True)
        raise KafkaError(
            f"Maven could not fetch Apache Kafka {VERSION}:\n{(done.stdout + done.stderr).strip()[-2000:]}"
        )
    half.rename(home / "libs")


def _format(kafka: Kafka) -> None:
    argv = ["java", *JAVA_OPTIONS, "-cp", _class_path(kafka.cache), "kafka.tools.StorageTool", "format"]
    argv += ["-t", CLUSTER_ID, "-c", str(kafka._properties)]
    done = run(argv, timeout=READY_TIMEOUT, cwd=kafka.folder, env=_environment())
    if done.returncode:
        raise KafkaError(f"Apache Kafka could not format {kafka.folder}: {_words(done)}")


def _words(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout + done.stderr).strip()[-2000:]


def _jars_are_there(base: Path) -> bool:
    return (base / f"kafka-{VERSION}" / "libs").is_dir()


def _class_path(home: Path) -> str:
    return ":".join(sorted(map(str, (home / "libs").glob("*.jar"))))


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "HOME") if name in os.environ}


@contextlib.contextmanager
def _one_at_a_time(base: Path) -> Iterator[None]:
    base.mkdir(parents=True, exist_ok=True)
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
