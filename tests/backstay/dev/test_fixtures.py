"""The fixtures that every other test stands on."""

import asyncpg
from confluent_kafka.admin import AdminClient


async def test_a_fresh_database_is_empty_and_its_owner_may_create(database: str) -> None:
    """Each test gets a database without tables and with the right to make some."""
    connection = await asyncpg.connect(database)
    try:
        tables = await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        await connection.execute("CREATE TABLE t (n int)")
    finally:
        await connection.close()

    assert tables == 0


async def test_databases_of_two_tests_differ(database: str) -> None:
    """What one test leaves behind no other sees."""
    connection = await asyncpg.connect(database)
    try:
        assert await connection.fetchval("SELECT to_regclass('t')") is None
    finally:
        await connection.close()


async def test_roles_cannot_enter_each_others_databases(database: str, postgres) -> None:
    """A service's role opens its own database only."""
    cluster = postgres.cluster
    cluster.create_databases({"stranger": "secret"})
    try:
        own = database.rpartition("/")[2]
        connection = asyncpg.connect(cluster.dsn(own, "stranger", "secret"))
        try:
            await connection
        except asyncpg.InsufficientPrivilegeError:
            return
        raise AssertionError("a stranger came in")
    finally:
        cluster.drop_databases(["stranger"])
        cluster.run_sql("DROP ROLE stranger")


def test_the_broker_answers(kafka) -> None:
    """The broker fixture serves clients at its bootstrap address."""
    assert AdminClient({"bootstrap.servers": kafka.bootstrap}).list_topics(timeout=10).topics
