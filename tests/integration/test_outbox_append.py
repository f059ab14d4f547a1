"""Appending on connections that are not ours, each in its own transaction."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from backstay.db import Database
from backstay.messaging import Event
from backstay.outbox import (
    Outbox,
    OutboxError,
    UnusableEvent,
    VersionConflict,
    append,
    append_rows,
    append_rows_sync,
    append_sync,
    rows_of,
)


class Brewed(Event, topic="brews", type="brew.done", key="order_id"):
    order_id: UUID
    n: int = 0


EVENT: dict[str, Any] = {"topic": "brews", "key": "k", "type": "brew.done"}


@pytest.fixture
async def db(database: str) -> AsyncIterator[Database]:
    opened = Database("coffee", dsn=database)
    Outbox(opened)
    async with opened:
        yield opened


async def written(db: Database) -> list[tuple[UUID, int | None]]:
    rows = await db.fetch("SELECT id, aggregateversion FROM outbox ORDER BY seq")
    return [(row["id"], row["aggregateversion"]) for row in rows]


def many(order: UUID) -> list[Brewed]:
    return [Brewed(order_id=order, n=n) for n in range(100)]


async def test_asyncpg(db: Database, database: str) -> None:
    """A plain asyncpg connection: rolled back with it, committed with it; a version is taken once."""
    connection = await asyncpg.connect(database)
    try:
        transaction = connection.transaction()
        await transaction.start()
        await append(connection, **EVENT, payload={"n": 1}, version=1)
        await transaction.rollback()
        ident = await append(connection, **EVENT, payload={"n": 2}, version=1)
        with pytest.raises(VersionConflict, match=r"'brew.done' with key 'k': version 1"):
            await append(connection, **EVENT, payload={"n": 3}, version=1)
        await append_rows(connection, rows_of(many(uuid4())))
    finally:
        await connection.close()

    rows = await written(db)
    assert rows[0] == (ident, 1)
    assert len(rows) == 101


async def test_psycopg(db: Database, database: str) -> None:
    """psycopg 3, asynchronous: connection or cursor."""
    async with await psycopg.AsyncConnection.connect(database) as connection:
        await append(connection, **EVENT, payload=b"{}", version=1)
        await connection.rollback()
        ident = await append(connection.cursor(), **EVENT, payload="{}", version=1, headers={"tenant": "a"})
        await connection.commit()
        with pytest.raises(VersionConflict):
            await append(connection, **EVENT, payload=None, version=1)
        await connection.rollback()
        await append_rows(connection, rows_of(many(uuid4())))

    rows = await written(db)
    assert rows[0] == (ident, 1)
    assert len(rows) == 101


async def test_psycopg_sync(db: Database, database: str) -> None:
    """psycopg 3, synchronous."""
    with psycopg.connect(database) as connection:
        append_sync(connection, **EVENT, payload={"n": 1}, version=1)
        connection.rollback()
        ident = append_sync(connection, **EVENT, payload={"n": 2}, version=1)
        connection.commit()
        with pytest.raises(VersionConflict):
            append_sync(connection, **EVENT, payload={"n": 3}, version=1)
        connection.rollback()
        append_rows_sync(connection, rows_of(many(uuid4())))

    rows = await written(db)
    assert rows[0] == (ident, 1)
    assert len(rows) == 101


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_sqlalchemy(db: Database, database: str, driver: str) -> None:
    """SQLAlchemy's AsyncSession on either driver."""
    engine = create_async_engine(database.replace("postgresql://", f"postgresql+{driver}://"))
    try:
        async with AsyncSession(engine) as session:
            await append(session, **EVENT, payload={"n": 1}, version=1)
            await session.rollback()
            ident = await append(session, **EVENT, payload={"n": 2}, version=1)
            await session.commit()
            with pytest.raises(VersionConflict):
                await append(session, **EVENT, payload={"n": 3}, version=1)
            await session.rollback()
            await append_rows(session, rows_of(many(uuid4())))
            await session.commit()
    finally:
        await engine.dispose()

    rows = await written(db)
    assert rows[0] == (ident, 1)
    assert len(rows) == 101


async def test_sqlalchemy_sync(db: Database, database: str) -> None:
    """SQLAlchemy's Session."""
    engine = create_engine(database.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with Session(engine) as session:
            append_sync(session, **EVENT, payload={"n": 1}, version=1)
            session.rollback()
            ident = append_sync(session, **EVENT, payload={"n": 2}, version=1)
            session.commit()
            with pytest.raises(VersionConflict):
                append_sync(session, **EVENT, payload={"n": 3}, version=1)
    finally:
        engine.dispose()

    assert await written(db) == [(ident, 1)]


async def test_our_own(db: Database) -> None:
    """Our own transaction says the same of a version that is taken."""
    box, order = Outbox(db), uuid4()
    async with db.transaction() as tx:
        await box.append(tx, Brewed(order_id=order), version=3)
    with pytest.raises(VersionConflict, match="version 3"):
        async with db.transaction() as tx:
            await box.append(tx, Brewed(order_id=order), version=3)
    async with db.transaction() as tx:
        await append(tx, **EVENT, payload={})

    assert [version for _, version in await written(db)] == [3, None]


async def test_wrong_kind(db: Database, database: str) -> None:
    """A synchronous connection in an asynchronous call, or the reverse, is told which function to use."""
    with psycopg.connect(database) as connection:
        with pytest.raises(OutboxError, match="append_sync"):
            await append(connection, **EVENT, payload={})
        connection.rollback()
    async with await psycopg.AsyncConnection.connect(database) as other:
        with pytest.raises(OutboxError, match="use append or"):
            append_sync(other, **EVENT, payload={})
        with pytest.raises(UnusableEvent, match=r"'brew.done' with key 'k'.*JSON"):
            await append(other, **EVENT, payload=object())

    assert await written(db) == []
