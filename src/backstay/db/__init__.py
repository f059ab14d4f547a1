"""PostgreSQL for a service: a lean pool, transactions, migrations, and SQL in files.

asyncpg stays behind this package: its errors come out as the tree in `backstay.db.errors`. `jsonb` is `str`,
`numeric` is `Decimal`, `timestamptz` is an aware `datetime`.
"""

from backstay.db.database import Database, DatabaseStatistics
from backstay.db.driver import Row
from backstay.db.errors import (
    Aborted,
    CheckViolation,
    DatabaseError,
    Deadlock,
    ForeignKeyViolation,
    LockTimeout,
    MigrationError,
    NotNullViolation,
    OutcomeUnknown,
    SerializationFailure,
    StatementTimeout,
    Unavailable,
    UniqueViolation,
)
from backstay.db.migrations import Component
from backstay.db.pool import PoolStatistics, ahead
from backstay.db.queries import Queries
from backstay.db.tls import secured
from backstay.db.transaction import Executor, Transaction

__all__ = [
    "Aborted",
    "CheckViolation",
    "Component",
    "Database",
    "DatabaseError",
    "DatabaseStatistics",
    "Deadlock",
    "Executor",
    "ForeignKeyViolation",
    "LockTimeout",
    "MigrationError",
    "NotNullViolation",
    "OutcomeUnknown",
    "PoolStatistics",
    "Queries",
    "Row",
    "SerializationFailure",
    "StatementTimeout",
    "Transaction",
    "Unavailable",
    "UniqueViolation",
    "ahead",
    "secured",
]
