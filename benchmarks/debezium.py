"""A Debezium on this machine: Kafka Connect standalone, with the connector configuration that we ship."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from backstay.dev import apache
from backstay.dev.program import Program

VERSION = "3.6.0.Final"
CONNECTOR = Path(__file__).parents[1] / "deploy" / "kafka" / "debezium-outbox.properties"
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>shop</groupId><artifactId>debezium</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>io.debezium</groupId><artifactId>debezium-connector-postgres</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>io.debezium</groupId><artifactId>debezium-embedded</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""
WORKER = """bootstrap.servers={kafka}
offset.storage.file.filename={folder}/offsets
offset.flush.interval.ms=1000
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
connector.client.config.override.policy=All
listeners=http://127.0.0.1:0
plugin.discovery=service_load
"""


def home() -> Path:
    """Where its jars are kept."""
    return apache.default_cache() / f"debezium-{VERSION}"


def is_available() -> bool:
    """Whether Java is there, and the jars or a Maven that fetches them."""
    return bool(shutil.which("java")) and ((home() / "libs").is_dir() or bool(shutil.which("mvn")))


def fetch() -> None:
    """The jars, by Maven, once."""
    if (home() / "libs").is_dir():
        return
    home().mkdir(parents=True, exist_ok=True)
    (home() / "pom.xml").write_text(POM)
    half = home() / "libs.new"
    shutil.rmtree(half, ignore_errors=True)
    argv = ["mvn", "-B", "-q", "-ntp", "-f", str(home() / "pom.xml"), "dependency:copy-dependencies"]
    subprocess.run([*argv, f"-DoutputDirectory={half}", "-DincludeScope=runtime"], check=True, timeout=600)
    half.rename(home() / "libs")


def program(folder: Path, *, kafka: str, dsn: str, slot: str, memory: str = "1g") -> Program:
    """Connect in the foreground, reading the database's table `outbox` through replication slot `slot`."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = urlsplit(dsn)
    values = {
        "HOST": parts.hostname,
        "PORT": parts.port,
        "USER": parts.username,
        "PASSWORD": parts.password,
        "NAME": parts.path[1:],
    }
    text = re.sub(r"\$\{env:DATABASE_(\w+)\}", lambda match: str(values[match[1]]), CONNECTOR.read_text())
    text = text.replace("slot.name=backstay_outbox", f"slot.name={slot}")
    (folder / "connector.properties").write_text(text)
    (folder / "worker.properties").write_text(WORKER.format(kafka=kafka, folder=folder))
    jars = ":".join(sorted(map(str, (home() / "libs").glob("*.jar"))))
    argv = ("java", f"-Xmx{memory}", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", jars)
    argv += ("org.apache.kafka.connect.cli.ConnectStandalone", "worker.properties", "connector.properties")
    env = {name: os.environ[name] for name in ("PATH", "JAVA_HOME", "HOME") if name in os.environ}
    return Program(name="debezium", argv=argv, log=folder / "debezium.log", env=env, cwd=folder, patience=15.0)
