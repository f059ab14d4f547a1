"""The database package on a real PostgreSQL."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from backstay import db
from backstay.db import Component, Database
from backstay.errors import ConfigError
from backstay.testing import eventually

TABLE = "CREATE TABLE things (id int PRIMARY KEY, name text CONSTRAINT named CHECK (name <> ''))"


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    (tmp_path / "0001_things.sql").write_text(TABLE)
    return tmp_path


@pytest.fixture
async def things(database: str, migrations: Path) -> AsyncIterator[Database]:
    async with Database("things", dsn=database, migrations=migrations, max_size=3) as opened:
        yield opened


async def test_commit_and_roll_back(things: Database) -> None:
    """A block that ends is committed; one that raises leaves nothing."""
    async with things.transaction() as tx:
        assert await tx.execute("INSERT INTO things VALUES (1, 'kept')") == "INSERT 0 1"
    with pytest.raises(ZeroDivisionError):
        async with things.transaction() as tx:
            await tx.executemany("INSERT INTO things VALUES ($1, $2)", [(2, "lost"), (3, "lost")])
            raise ZeroDivisionError

    assert [row["name"] for row in await things.fetch("SELECT name FROM things")] == ["kept"]
    assert (things.statistics().committed, things.statistics().rolled_back) == (1, 1)


async def test_values(things: Database) -> None:
    """numeric is Decimal, timestamptz is aware, jsonb is text."""
    row = await things.fetchrow("SELECT 1.10::numeric AS n, now() AS t, '{\"a\": 1}'::jsonb AS j")

    assert row is not None
    assert row["n"] == Decimal("1.10")
    assert row["t"].tzinfo is not None
    assert abs((row["t"] - datetime.now(UTC)).total_seconds()) < 60
    assert json.loads(row["j"]) == {"a": 1}


async def test_a_statement_commits_itself(things: Database) -> None:
    """What one statement wrote is there for others at once, and whoever waited for the commit is called."""
    called: list[str] = []
    async with things.statement() as tx:
        tx.after_commit(lambda: called.append("committed"))
        await tx.execute("INSERT INTO things VALUES (71, 'alone')")
        assert await things.fetchval("SELECT name FROM things WHERE id = 71") == "alone"
        assert called == []

    assert called == ["committed"]
    with pytest.raises(db.DatabaseError, match="ended"):
        await tx.execute("SELECT 1")


async def test_a_statement_is_one(things: Database) -> None:
    """A second statement would be a second transaction, so it is refused; a failed one calls nobody."""
    with pytest.raises(db.DatabaseError, match="for one statement"):
        async with things.statement() as tx:
            await tx.fetchval("SELECT 1")
            await tx.fetchval("SELECT 2")
    called: list[str] = []
    with pytest.raises(db.DatabaseError):
        async with things.statement() as tx:
            tx.after_commit(lambda: called.append("never"))
            await tx.execute("SELECT 1 / 0")

    assert called == []
    assert things.statistics().pool.idle >= 1


async def test_after_commit(things: Database) -> None:
    """Callbacks run after the commit only, and a failing one harms nobody."""
    called: list[str] = []
    async with things.transaction() as tx:
        tx.after_commit(lambda: called.append("committed"))
        tx.after_commit(lambda: called[7].upper() and None)
        tx.after_commit(lambda: called.append("still called"))
        assert called == []
    with pytest.raises(db.UniqueViolation):
        async with things.transaction() as tx:
            tx.after_commit(lambda: called.append("never"))
            await tx.execute("INSERT INTO things VALUES (1, 'a'), (1, 'b')")

    assert called == ["committed", "still called"]


async def test_constraints(things: Database) -> None:
    """A violated constraint is named."""
    with pytest.raises(db.CheckViolation) as caught:
        await things.execute("INSERT INTO things VALUES (1, '')")

    assert caught.value.constraint == "named"


async def test_swallowed_failure_is_not_committed(things: Database) -> None:
    """A block that ignores a failed statement doesn't pass for committed."""
    with pytest.raises(db.Aborted):
        async with things.transaction() as tx:
            await tx.execute("INSERT INTO things VALUES (1, 'a')")
            with pytest.raises(db.DatabaseError):
                await tx.execute("SELECT nonsense")

    assert await things.fetchval("SELECT count(*) FROM things") == 0


async def test_savepoint(things: Database) -> None:
    """A savepoint undoes its own part only, callbacks included."""
    called: list[str] = []
    async with things.transaction() as tx:
        tx.after_commit(lambda: called.append("outer"))
        await tx.execute("INSERT INTO things VALUES (1, 'a')")
        with pytest.raises(db.UniqueViolation):
            async with tx.savepoint():
                tx.after_commit(lambda: called.append("inner"))
                await tx.execute("INSERT INTO things VALUES (1, 'again')")
        async with tx.savepoint():
            await tx.execute("INSERT INTO things VALUES (2, 'b')")

    assert await things.fetchval("SELECT count(*) FROM things") == 2
    assert called == ["outer"]


async def test_ended_transaction_is_useless(things: Database) -> None:
    """A transaction kept beyond its block can't write on somebody else's connection."""
    async with things.transaction() as tx:
        pass

    with pytest.raises(db.DatabaseError, match="has ended"):
        await tx.execute("INSERT INTO things VALUES (1, 'a')")


async def test_cancelled_transaction(things: Database) -> None:
    """A cancelled block is rolled back, and its connection serves again."""
    started = asyncio.Event()

    async def work() -> None:
        async with things.transaction() as tx:
            await tx.execute("INSERT INTO things VALUES (1, 'a')")
            started.set()
            await tx.execute("SELECT pg_sleep(60)")

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await eventually(lambda: things.statistics().pool.idle == things.statistics().pool.size)

    assert await things.fetchval("SELECT count(*) FROM things") == 0
    assert things.statistics().pool.dropped == 0


async def test_cancelled_statement(things: Database) -> None:
    """Cancelling a single statement gives the connection back once the server has stopped."""
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await things.execute("SELECT pg_sleep(60)")
    await eventually(lambda: things.statistics().pool.idle == things.statistics().pool.size)

    assert await things.fetchval("SELECT 1") == 1


async def test_statement_timeout(database: str) -> None:
    """A statement that runs too long is stopped by the server."""
    async with Database("slow", dsn=database, statement_timeout=0.05) as slow:
        with pytest.raises(db.StatementTimeout):
            await slow.execute("SELECT pg_sleep(60)")
        with pytest.raises(db.StatementTimeout):
            await slow.execute("SELECT pg_sleep(60)", timeout=0.01)
        assert await slow.fetchval("SELECT 1") == 1


async def test_deadlock_and_locks(things: Database) -> None:
    """A refused lock and a deadlock are errors of their own."""
    await things.execute("INSERT INTO things VALUES (1, 'a'), (2, 'b')")
    lock = "SELECT 1 FROM things WHERE id = $1 FOR UPDATE"
    both = asyncio.Barrier(2)

    async def take(first: int, second: int) -> None:
        async with things.transaction() as tx:
            await tx.execute(lock, first)
            await both.wait()
            with pytest.raises(db.LockTimeout):
                await tx.fetch(lock + " NOWAIT", second) if first == 1 else await asyncio.sleep(3600)
            raise db.LockTimeout

    async def cross(first: int, second: int) -> None:
        async with things.transaction() as tx:
            await tx.execute(lock, first)
            await both.wait()
            await tx.execute(lock, second)

    holder = asyncio.create_task(take(2, 1))
    with pytest.raises(db.LockTimeout):
        await take(1, 2)
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    outcomes = await asyncio.gather(cross(1, 2), cross(2, 1), return_exceptions=True)

    assert sorted(type(outcome) for outcome in outcomes if outcome is not None) == [db.Deadlock]


async def test_lost_connection(things: Database) -> None:
    """A lost connection is Unavailable once, then the pool has a new one."""
    with pytest.raises(db.Unavailable):
        async with things.transaction() as tx:
            pid = await tx.fetchval("SELECT pg_backend_pid()")
            await things.execute("SELECT pg_terminate_backend($1)", pid)
            await tx.execute("SELECT 1")

    assert await things.fetchval("SELECT 1") == 1


async def test_idle_connections_may_be_gone(things: Database) -> None:
    """When the server has left the idle connections, a transaction begins on a new one."""
    held = [things.transaction() for _ in range(3)]
    pids = [await (await one.__aenter__()).fetchval("SELECT pg_backend_pid()") for one in held]
    for one in held:
        await one.__aexit__(None, None, None)
    async with things.session() as session:
        await session.execute("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)

    async with things.transaction() as tx:
        assert await tx.fetchval("SELECT 1") == 1


async def test_refused_mode(things: Database) -> None:
    """A transaction that can't begin as asked costs no connection."""
    with pytest.raises(db.DatabaseError, match="syntax"):
        async with things.transaction("ISOLATION LEVEL WHATEVER"):
            pass

    assert things.statistics().pool.idle == 1


async def test_commit_without_answer(things: Database) -> None:
    """A connection that is lost before COMMIT's answer leaves the outcome unknown, and says so."""
    called: list[int] = []
    with pytest.raises(db.OutcomeUnknown):
        async with things.transaction() as tx:
            tx.after_commit(lambda: called.append(1))
            tx.raw.terminate()

    assert called == []


async def test_ping(things: Database) -> None:
    """`ping` is silent when all is well, and Unavailable when no answer comes in time."""
    await things.ping()
    held = [things.transaction() for _ in range(3)]
    for one in held:
        await one.__aenter__()
    with pytest.raises(db.Unavailable, match="things"):
        await things.ping(timeout=0.01)
    for one in held:
        await one.__aexit__(None, None, None)


async def test_session_is_outside_the_pool(things: Database) -> None:
    """A session doesn't take a place of the pool."""
    async with things.session() as session:
        assert await session.fetchval("SELECT current_setting('application_name')") == "things"
        assert len(things._pool._used) == 0


async def test_nobody_there(migrations: Path) -> None:
    """A database that doesn't come up in time is Unavailable."""
    nowhere = Database("things", dsn="postgresql://u@127.0.0.1:1/x", migrations=migrations, startup_timeout=0.2)
    with pytest.raises(db.Unavailable):
        async with nowhere:
            pass


async def test_wrong_password_fails_at_once(database: str) -> None:
    """A mistake that waiting can't mend isn't waited for."""
    wrong = Database("things", dsn=database.replace("secret", "wrong"))
    with pytest.raises(db.DatabaseError, match="password"):
        async with asyncio.timeout(5):
            await wrong.__aenter__()


async def test_address_is_needed() -> None:
    """Without an address the error says which setting is missing."""
    with pytest.raises(ConfigError, match="DATABASE_URL"):
        await Database("things").__aenter__()


async def test_repr_hides_the_password(database: str) -> None:
    """The address in `repr` has no password."""
    assert "secret" not in repr(Database("things", dsn=database))


async def test_migrations_once(database: str, migrations: Path) -> None:
    """Several processes that start together apply each file once."""

    async def start() -> None:
        async with Database("things", dsn=database, migrations=migrations):
            pass

    await asyncio.gather(*(start() for _ in range(4)))
    (migrations / "0002_more.sql").write_text("ALTER TABLE things ADD more int; CREATE INDEX ON things (more)")

    async with Database("things", dsn=database, migrations=migrations) as opened:
        applied = await opened.fetch("SELECT component, version FROM schema_migrations ORDER BY version")
    assert [tuple(row) for row in applied] == [("things", 1), ("things", 2)]


async def test_failed_migration_leaves_nothing(database: str, migrations: Path) -> None:
    """A file that fails is rolled back as a whole, and named."""
    (migrations / "0002_bad.sql").write_text("CREATE TABLE half (id int); SELECT nonsense")
    with pytest.raises(db.MigrationError, match=r"things/0002_bad.*nonsense"):
        async with Database("things", dsn=database, migrations=migrations):
            pass
    (migrations / "0002_bad.sql").unlink()

    async with Database("things", dsn=database, migrations=migrations) as opened:
        assert await opened.fetchval("SELECT to_regclass('half')") is None


async def test_components_come_first(database: str, tmp_path: Path) -> None:
    """Tables of the platform are there before a service's own migrations run."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    (theirs / "0001_base.sql").write_text("CREATE TABLE base (id int PRIMARY KEY)")
    (ours / "0001_ref.sql").write_text("CREATE TABLE ref (id int REFERENCES base)")
    made = Database("things", dsn=database, migrations=ours)
    made.requires(Component("base", theirs))
    made.requires(Component("base", theirs))

    async with made as opened:
        assert await opened.fetchval("SELECT to_regclass('ref')") is not None
    with pytest.raises(ConfigError, match="twice"):
        made.requires(Component("base", ours))


async def test_a_start_waits_out_a_silent_database() -> None:
    """A database that takes connections and doesn't answer yet is waited for, like one that isn't there."""
    nowhere = Database("things", dsn="postgresql://u@127.0.0.1:1/x")
    answers: list[db.DatabaseError | None] = [db.StatementTimeout("no answer"), None]

    async def step() -> None:
        if (error := answers.pop(0)) is not None:
            raise error

    await nowhere._when_there(step)
    assert answers == []
    with pytest.raises(db.CheckViolation):
        answers.append(db.CheckViolation("x"))
        await nowhere._when_there(step)
