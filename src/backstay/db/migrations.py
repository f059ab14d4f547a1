"""Migrations: numbered `.sql` files of a component, each applied once, each in a transaction of its own.

    migrations/0001_orders.sql, migrations/0002_timeline.sql, ...

Several processes may start at once: an advisory lock lets one of them work while the others wait. A file that was
applied may never change (its checksum is kept). Versions in the database that this code doesn't know are left
alone, so that an older release still starts beside a newer one.
"""

import asyncio
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from backstay.db.driver import DRIVER_ERRORS, Connection
from backstay.db.errors import MigrationError, Unavailable, translate

LOCK_KEY = 0x6261636B73746179  # "backstay"
LOCK_TIMEOUT = 120.0  # seconds to wait for another process that is migrating
_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_-]+)\.sql")

log = logging.getLogger("backstay.db")

_CREATE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    component  text        NOT NULL,
    version    integer     NOT NULL,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (component, version)
)"""
_RECORD = "INSERT INTO schema_migrations (component, version, name, checksum) VALUES ($1, $2, $3, $4)"


@dataclass(frozen=True, slots=True)
class Component:
    """A set of tables with migrations of its own, in the folder `path`."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Migration:
    """One file."""

    component: str
    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.sql.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.component}/{self.version:04d}_{self.name}"


def read(component: Component) -> list[Migration]:
    """Return the migrations of `component` by version; MigrationError for a bad name or a version that occurs twice."""
    if not component.path.is_dir():
        raise MigrationError(f"component {component.name!r}: there is no folder {component.path}")
    found: dict[int, Migration] = {}
    for file in sorted(component.path.glob("*.sql")):
        match = _FILE.fullmatch(file.name)
        if match is None:
            raise MigrationError(f"{file}: the name is not NNNN_words.sql")
        version = int(match["version"])
        if version in found:
            raise MigrationError(f"{file}: version {version:04d} is taken by {found[version]}")
        found[version] = Migration(component.name, version, match["name"], file.read_text(encoding="utf-8"))
    return [found[version] for version in sorted(found)]


def pending(migrations: Sequence[Migration], applied: dict[tuple[str, int], str]) -> list[Migration]:
    """Return the migrations that aren't `applied` (component and version → checksum); checks those that are."""
    for migration in migrations:
        checksum = applied.get((migration.component, migration.version))
        if checksum is not None and checksum != migration.checksum:
            raise MigrationError(f"{migration} was changed after it had been applied: add a new file instead")
    return [one for one in migrations if (one.component, one.version) not in applied]


async def migrate(connection: Connection, components: Sequence[Component]) -> list[Migration]:
    """Apply what is missing, in the order of `components`; returns what was applied."""
    migrations = [migration for component in components for migration in await asyncio.to_thread(read, component)]
    if not migrations:
        return []
    try:
        if await _is_done(connection, migrations):
            return []
        await _lock(connection)
        try:
            return await _apply(connection, migrations)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", LOCK_KEY)
    except DRIVER_ERRORS as error:
        raise translate(error) from error


async def _is_done(connection: Connection, migrations: Sequence[Migration]) -> bool:
    """Return whether all of it is there already: then nothing is locked, and no right to make tables is needed."""
    if await connection.fetchval("SELECT to_regclass('schema_migrations')") is None:
        return False
    return not pending(migrations, await _applied(connection))


async def _applied(connection: Connection) -> dict[tuple[str, int], str]:
    rows = await connection.fetch("SELECT component, version, checksum FROM schema_migrations")
    return {(row["component"], row["version"]): row["checksum"] for row in rows}


async def _lock(connection: Connection) -> None:
    await connection.execute("SET statement_timeout = 0")
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", LOCK_KEY, timeout=LOCK_TIMEOUT)
    except TimeoutError:
        raise Unavailable(f"another process has been migrating this database for {LOCK_TIMEOUT:g} s") from None


async def _apply(connection: Connection, migrations: Sequence[Migration]) -> list[Migration]:
    await connection.execute(_CREATE)
    todo = pending(migrations, await _applied(connection))
    for migration in todo:
        try:
            async with connection.transaction():
                await connection.execute(migration.sql, timeout=LOCK_TIMEOUT)
                await connection.execute(
                    _RECORD, migration.component, migration.version, migration.name, migration.checksum
                )
        except asyncpg.PostgresError as error:
            problem = translate(error)
            raise (problem if problem.transient else MigrationError(f"{migration}: {error}")) from error
        log.info("db.migrated", extra={"migration": str(migration)})
    return todo
