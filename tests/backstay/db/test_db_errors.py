import asyncpg
import pytest

from backstay import db
from backstay.db.errors import translate
from backstay.errors import BackstayError


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (asyncpg.DeadlockDetectedError("x"), db.Deadlock),
        (asyncpg.SerializationError("x"), db.SerializationFailure),
        (asyncpg.LockNotAvailableError("x"), db.LockTimeout),
        (asyncpg.QueryCanceledError("x"), db.StatementTimeout),
        (asyncpg.UniqueViolationError("x"), db.UniqueViolation),
        (asyncpg.CheckViolationError("x"), db.CheckViolation),
        (asyncpg.ForeignKeyViolationError("x"), db.ForeignKeyViolation),
        (asyncpg.NotNullViolationError("x"), db.NotNullViolation),
        (asyncpg.TooManyConnectionsError("x"), db.Unavailable),
        (asyncpg.CannotConnectNowError("x"), db.Unavailable),
        (asyncpg.AdminShutdownError("x"), db.Unavailable),
        (asyncpg.ConnectionDoesNotExistError("x"), db.Unavailable),
        (asyncpg.DiskFullError("x"), db.Unavailable),
        (asyncpg.ReadOnlySQLTransactionError("x"), db.Unavailable),
        (asyncpg.InterfaceError("cannot perform operation: connection is closed"), db.Unavailable),
        (asyncpg.InterfaceError("the underlying connection is closed"), db.Unavailable),
        (asyncpg.InternalClientError("cannot switch to state 15"), db.Unavailable),
        (ConnectionRefusedError("x"), db.Unavailable),
        (TimeoutError(), db.StatementTimeout),
        (asyncpg.UndefinedTableError("x"), db.DatabaseError),
        (asyncpg.InterfaceError("the server expects 1 argument"), db.DatabaseError),
    ],
)
def test_every_driver_error_is_mapped(raised: Exception, expected: type[db.DatabaseError]) -> None:
    """Nobody needs asyncpg to catch what the database said."""
    assert type(translate(raised)) is expected


def test_translate_keeps_ours() -> None:
    """An error that is ours already stays as it is."""
    ours = db.Deadlock("x")

    assert translate(ours) is ours


def test_tree() -> None:
    """Unavailable is also a ConnectionError, for resilience policies; `transient` tells what is worth repeating."""
    assert issubclass(db.Unavailable, ConnectionError)
    assert issubclass(db.Unavailable, BackstayError)
    assert db.Deadlock.transient
    assert not db.UniqueViolation.transient


def test_row_values_stay_out_of_messages() -> None:
    """The server's DETAIL holds a customer's data; the message and the constraint don't."""
    error = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
    error.detail = "Key (email)=(ann@example.com) already exists."
    error.constraint_name = "users_email"
    mapped = translate(error)

    assert "ann@" not in str(mapped)
    assert mapped.constraint == "users_email"
    assert mapped.sqlstate == "23505"
