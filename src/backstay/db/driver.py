"""The one place that names the driver's types."""

from typing import TYPE_CHECKING, TypeAlias

import asyncpg

Row: TypeAlias = asyncpg.Record

if TYPE_CHECKING:
    Connection: TypeAlias = asyncpg.Connection[Row]
else:
    Connection = asyncpg.Connection  # generic in the stubs only

DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
