"""Errors of the database.

DatabaseError(BackstayError)
├── Unavailable(ConnectionError)     refused, lost, starting, shutting down, full, or no connection free in time
│   └── OutcomeUnknown               lost while a commit was under way: it may have happened
├── Deadlock                         PostgreSQL chose this transaction as the victim
├── SerializationFailure             concurrent update under a stricter isolation level
├── LockTimeout                      a lock was not granted in time (or NOWAIT)
├── StatementTimeout                 a statement ran longer than it may
├── UniqueViolation                  .constraint
├── CheckViolation                   .constraint
├── ForeignKeyViolation              .constraint
├── NotNullViolation                 .column
├── Aborted                          committed although a statement had failed: nothing was saved
└── MigrationError                   a migration file is wrong, changed, or failed

`transient` errors are those of the moment: the same transaction may succeed when it is repeated.
"""

from typing import ClassVar

import asyncpg

from backstay.errors import BackstayError


class DatabaseError(BackstayError):
    """The database refused a statement.

    `sqlstate` is PostgreSQL's five-letter code, if it gave one.
    """

    transient: ClassVar[bool] = False

    def __init__(
        self,
        message: str | None = None,
        *,
        sqlstate: str | None = None,
        constraint: str | None = None,
        column: str | None = None,
    ) -> None:
        super().__init__(message)
        self.sqlstate = sqlstate
        self.constraint = constraint
        self.column = column


class Unavailable(DatabaseError, ConnectionError):
    """The database can't be reached, or has no connection to spare."""

    transient = True


class OutcomeUnknown(Unavailable):
    """The connection was lost while the commit was under way; it may or may not have happened."""


class Deadlock(DatabaseError):
    """Two transactions waited for each other, and this one was rolled back."""

    transient = True


class SerializationFailure(DatabaseError):
    """A concurrent transaction changed what this one had read."""

    transient = True


class LockTimeout(DatabaseError):
    """A lock was not granted in time."""

    transient = True


class StatementTimeout(DatabaseError):
    """A statement ran longer than it may."""

    transient = True


class UniqueViolation(DatabaseError):
    """A row with this key exists already."""


class CheckViolation(DatabaseError):
    """A value breaks a check constraint."""


class ForeignKeyViolation(DatabaseError):
    """A row refers to one that doesn't exist, or is still referred to."""


class NotNullViolation(DatabaseError):
    """A value is missing."""


class Aborted(DatabaseError):
    """A statement of this transaction had failed and was ignored, so its commit saved nothing."""


class MigrationError(DatabaseError):
    """The migrations and the database don't fit."""


_BY_STATE: dict[str, type[DatabaseError]] = {
    "40P01": Deadlock,
    "40001": SerializationFailure,
    "55P03": LockTimeout,
    "57014": StatementTimeout,
    "23505": UniqueViolation,
    "23514": CheckViolation,
    "23503": ForeignKeyViolation,
    "23502": NotNullViolation,
    "25006": Unavailable,  # read-only: the primary has moved
    "25P03": Unavailable,  # idle-in-transaction time-out, the session is gone
    "57P01": Unavailable,
    "57P02": Unavailable,
    "57P03": Unavailable,
    "57P05": Unavailable,
}
_UNAVAILABLE_CLASSES = ("08", "53", "58")  # connection, resources, system


def translate(error: BaseException) -> DatabaseError:
    """Return the Backstay error for what the driver raised."""
    if isinstance(error, DatabaseError):
        return error
    if isinstance(error, asyncpg.PostgresError):
        return _from_server(error)
    if isinstance(error, TimeoutError):
        return StatementTimeout("the database did not answer in time; check its load and the network, or allow more")
    if isinstance(error, OSError | asyncpg.InternalClientError) or "connection is closed" in str(error):
        return Unavailable(f"the database can't be reached: {error}")
    return DatabaseError(f"the driver refused the statement: {error}")


def _from_server(error: asyncpg.PostgresError) -> DatabaseError:
    state: str = getattr(error, "sqlstate", None) or ""
    kind = _BY_STATE.get(state)
    if kind is None:
        kind = Unavailable if state.startswith(_UNAVAILABLE_CLASSES) else DatabaseError
    # The server's DETAIL holds values of rows: it stays out of the message.
    message = f"{error.args[0] if error.args else error} ({state or 'no code'})"
    return kind(
        message,
        sqlstate=state or None,
        constraint=getattr(error, "constraint_name", None),
        column=getattr(error, "column_name", None),
    )
