"""Appending on an application's own connection: asyncpg, psycopg 3 (either kind), or SQLAlchemy (either kind).

Nothing of theirs is imported before they hand us one of theirs. The statement is the same for all, one round trip for
any number of events, in the transaction that is open on the connection: it commits and rolls back with it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from inspect import isawaitable
from typing import Any
from uuid import UUID

import msgspec

from backstay.outbox.errors import OutboxError, UnusableEvent, VersionConflict
from backstay.outbox.rows import OutboxRows, add, current_trace
from backstay.outbox.store import VERSION_INDEX, sql

_PARAMETER = re.compile(r"\$(\d+)::(\w+(?:\[\])?)")
_STATEMENTS = (sql.append_one, sql.append)  # for one event, for many
_POSITIONAL = [_PARAMETER.sub(r"%s::\2", one) for one in _STATEMENTS]  # psycopg; each parameter occurs once, in order
_NAMED = [_PARAMETER.sub(r"CAST(:p\1 AS \2)", one) for one in _STATEMENTS]  # SQLAlchemy


async def append(
    connection: Any,
    *,
    topic: str,
    key: str,
    type: str,  # noqa: A002
    payload: object,
    id: UUID | None = None,  # noqa: A002
    version: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> UUID:
    """Write one event on `connection`, in its open transaction; returns the event's id.

    connection: asyncpg's, psycopg's AsyncConnection or AsyncCursor, or SQLAlchemy's AsyncSession or AsyncConnection.
    payload: JSON as `str` or `bytes`, or anything msgspec encodes; None makes a tombstone. UnusableEvent: the event
    can't be written; VersionConflict: another transaction has published this version of the aggregate.
    """
    rows, ident = one_row(topic, key, type, payload, id=id, version=version, headers=headers)
    await append_rows(connection, rows)
    return ident


async def append_rows(connection: Any, rows: OutboxRows) -> None:
    """Write many events in one round trip; see `append`. The rows come from `rows_of`."""
    try:
        running = _execute(connection, rows)
        if not isawaitable(running):
            raise OutboxError(f"{_name(connection)} isn't asynchronous: use append_sync or append_rows_sync")
        await running
    except Exception as error:
        _explain(error, rows)
        raise


def append_sync(
    connection: Any,
    *,
    topic: str,
    key: str,
    type: str,  # noqa: A002
    payload: object,
    id: UUID | None = None,  # noqa: A002
    version: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> UUID:
    """`append` for psycopg's Connection or Cursor, and SQLAlchemy's Session or Connection."""
    rows, ident = one_row(topic, key, type, payload, id=id, version=version, headers=headers)
    append_rows_sync(connection, rows)
    return ident


def append_rows_sync(connection: Any, rows: OutboxRows) -> None:
    """`append_rows` for psycopg's Connection or Cursor, and SQLAlchemy's Session or Connection."""
    if _name(connection).rpartition(".")[2].startswith("Async") or _root(connection) == "asyncpg":
        raise OutboxError(f"{_name(connection)} is asynchronous: use append or append_rows")
    try:
        _execute(connection, rows)
    except Exception as error:
        _explain(error, rows)
        raise


def one_row(
    topic: str,
    key: str,
    kind: str,
    payload: object,
    *,
    id: UUID | None,  # noqa: A002
    version: int | None,
    headers: Mapping[str, str] | None,
) -> tuple[OutboxRows, UUID]:
    """Return the row of one event, checked, and its id."""
    rows = OutboxRows()
    text = _json(payload, kind, key)
    ident = add(rows, topic, key, kind, text, id=id, version=version, headers=headers, trace=current_trace())
    return rows, ident


def conflict(rows: OutboxRows) -> VersionConflict:
    """Return the error for a version that exists already."""
    one = next((n for n, version in enumerate(rows.versions) if version is not None), 0)
    return VersionConflict(
        f"event {rows.types[one]!r} with key {rows.keys[one]!r}: version {rows.versions[one]} has been published by"
        " another transaction: lock or version-check the aggregate's row before appending"
    )


def _execute(connection: Any, rows: OutboxRows) -> Any:
    many = len(rows) != 1
    arguments: Sequence[object] = rows.arguments if many else rows.values
    match _root(connection):
        case "psycopg":
            return connection.execute(_POSITIONAL[many], arguments)
        case "sqlalchemy":
            from sqlalchemy import text

            return connection.execute(text(_NAMED[many]), {f"p{n}": value for n, value in enumerate(arguments, 1)})
        case _:
            return connection.execute(_STATEMENTS[many], *arguments)


def _explain(error: Exception, rows: OutboxRows) -> None:
    if any(_is_conflict(one) for one in _causes(error)):
        raise conflict(rows) from error


def _is_conflict(error: BaseException) -> bool:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    return state == "23505" and VERSION_INDEX in str(error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(5):
        if error is None:
            return
        yield error
        error = getattr(error, "orig", None) or error.__cause__


def _root(connection: Any) -> str:
    return next(
        (root for kind in type(connection).__mro__ if (root := kind.__module__.partition(".")[0]) in _KNOWN), ""
    )


_KNOWN = ("asyncpg", "psycopg", "sqlalchemy")


def _name(connection: Any) -> str:
    kind = type(connection)
    return f"{kind.__module__}.{kind.__qualname__}"


def _json(payload: object, kind: str, key: str) -> str | None:
    if payload is None or isinstance(payload, str):
        return payload
    try:
        return payload.decode() if isinstance(payload, bytes) else msgspec.json.encode(payload).decode()
    except (TypeError, ValueError) as error:
        what = f"event {kind!r} with key {key[:80]!r}"
        raise UnusableEvent(f"{what}: its payload can't be written as JSON: {error}") from error
