"""Users, sessions, failures and keys in PostgreSQL."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from backstay.db import Database, Queries, Row, Transaction
from shop.auth.model import ADDRESSES_KEPT, FAILURES_KEPT, FailureLimit, KeyRecord, KeyState, RefreshToken, User

sql = Queries.load(__package__)


@dataclass(frozen=True, slots=True)
class StoredPassword:
    """The hash of a password, and its version: hashing the same password anew doesn't change that."""

    hash: str
    version: int


@dataclass(frozen=True, slots=True)
class Login:
    """The stored facts about the account of a login."""

    user: User | None
    password: StoredPassword | None
    blocked_until: datetime | None
    has_failures: bool
    familiar_at: datetime | None
    """Last login from the same address, noted once a day; None if there was none."""


async def now(db: Database) -> datetime:
    """Return the time by the database's clock."""
    at: datetime = await db.fetchval(sql.now)
    return at


async def insert_user(tx: Transaction, user: User, key: str, password_hash: str) -> bool:
    """Save a new user; False when the address is known."""
    saved = await tx.fetchval(
        sql.insert_user, user.id, user.email, key, user.name, password_hash, list(user.roles), user.created_at
    )
    return saved is not None


async def tell_repeat(tx: Transaction, key: str, at: datetime, not_since: datetime) -> User | None:
    """Return the owner of a known address and mark the notification; None if the last one was after `not_since`."""
    row = await tx.fetchrow(sql.tell_repeat, key, at, not_since)
    return None if row is None else _user(row)


async def find_user(db: Database, user_id: UUID) -> User | None:
    """One user."""
    row = await db.fetchrow(sql.find_user, user_id)
    return None if row is None else _user(row)


async def knows_email(db: Database, key: str) -> bool:
    """Return whether an address has an account."""
    return await db.fetchval(sql.find_email, key) is not None


async def find_hash(db: Database, key: str) -> str | None:
    """Return the hashed password of an address that has an account."""
    stored: str | None = await db.fetchval(sql.find_hash, key)
    return stored


async def find_login(db: Database, key: str, limits: Sequence[FailureLimit], address: str) -> Login:
    """Return who wants to log in, and until when he has to wait."""
    own = [limit.key for limit in limits if not limit.shared]
    row = await db.fetchrow(sql.find_login, key, [limit.key for limit in limits], own, address)
    assert row is not None
    known = row["id"] is not None
    return Login(
        _user(row) if known else None,
        _password(row) if known else None,
        row["blocked_until"],
        row["has_failures"],
        row["familiar_at"],
    )


async def note_address(db: Database | Transaction, user_id: UUID, address: str, at: datetime) -> None:
    """Remember that a user came from an address."""
    await db.execute(sql.note_address, user_id, address, at)


async def find_password(db: Database, user_id: UUID) -> tuple[str, StoredPassword] | None:
    """Return a user's address as it is compared, and the password."""
    row = await db.fetchrow(sql.find_password, user_id)
    return None if row is None else (row["email_key"], _password(row))


async def blocked_until(db: Database, limits: Sequence[FailureLimit]) -> datetime | None:
    """Until when this caller has to wait."""
    until: datetime | None = await db.fetchval(sql.blocked_until, [limit.key for limit in limits])
    return until


async def note_failure(db: Database, limits: Sequence[FailureLimit], at: datetime) -> None:
    """Count a failed login."""
    columns = zip(*((limit.key, limit.free, limit.drain, limit.longest) for limit in limits), strict=True)
    await db.execute(sql.note_failure, *map(list, columns), at)


async def forget_failures(db: Database, keys: Sequence[str]) -> None:
    """Count from zero again."""
    await db.execute(sql.forget_failures, list(keys))


async def replace_hash(db: Database, user_id: UUID, before: str, after: str) -> None:
    """Store the same password hashed anew."""
    await db.execute(sql.replace_hash, user_id, before, after)


async def open_session(
    db: Database,
    session_id: UUID,
    user_id: UUID,
    password: StoredPassword,
    *,
    at: datetime,
    until: datetime,
    token_hash: bytes,
    token_until: datetime,
) -> bool:
    """Return a session with its first refresh token; False if the password is no longer the one that was checked."""
    opened = await db.fetchval(
        sql.open_session, session_id, user_id, password.version, at, until, token_hash, token_until
    )
    return opened is not None


async def lock_refresh_token(tx: Transaction, token_hash: bytes) -> RefreshToken | None:
    """Return a refresh token, held with its session until the transaction ends."""
    row = await tx.fetchrow(sql.lock_refresh_token, token_hash)
    if row is None:
        return None
    return RefreshToken(
        session_id=row["session_id"],
        user_id=row["user_id"],
        roles=tuple(row["roles"]),
        expires_at=row["expires_at"],
        used_at=row["used_at"],
        session_ended_at=row["ended_at"],
        session_expires_at=row["session_expires_at"],
        successor_seed=row["successor_seed"],
    )


async def rotate_refresh_token(
    tx: Transaction, before: bytes, after: bytes, session_id: UUID, *, at: datetime, until: datetime, seed: bytes
) -> None:
    """Spend a refresh token and add its successor, which was derived with `seed`."""
    await tx.execute(sql.rotate_refresh_token, before, after, session_id, at, until, seed)


async def is_unused(tx: Transaction, token_hash: bytes) -> bool:
    """Return whether a refresh token is there and was never used."""
    unused: bool = await tx.fetchval(sql.is_unused, token_hash)
    return unused


async def end_session(tx: Transaction, session_id: UUID, at: datetime, reason: str) -> UUID | None:
    """End a session; its user's id, or None if it was over already."""
    user_id: UUID | None = await tx.fetchval(sql.end_session, session_id, at, reason)
    return user_id


async def change_password(tx: Transaction, user_id: UUID, before: StoredPassword, after: str) -> bool:
    """Store a new password; False if it was changed meanwhile."""
    return await tx.fetchval(sql.change_password, user_id, before.version, after) is not None


async def end_sessions_of(tx: Transaction, user_id: UUID, at: datetime, reason: str) -> list[UUID]:
    """End all living sessions of a user; their ids."""
    return [row["id"] for row in await tx.fetch(sql.end_sessions_of, user_id, at, reason)]


async def prune(db: Database, now: datetime, ended_before: datetime) -> None:
    """Remove what is over: sessions, tokens, failures."""
    await db.execute(sql.prune_sessions, now, ended_before)
    await db.execute(sql.prune_refresh_tokens, now)
    await db.execute(sql.prune_failures, now - FAILURES_KEPT)
    await db.execute(sql.prune_addresses, now - ADDRESSES_KEPT)


async def keys(db: Database | Transaction) -> list[KeyRecord]:
    """Every key that is published, oldest first."""
    return [
        KeyRecord(
            kid=row["kid"],
            state=KeyState(row["state"]),
            sealed=row["sealed"],
            created_at=row["created_at"],
            activated_at=row["activated_at"],
            retires_at=row["retires_at"],
        )
        for row in await db.fetch(sql.keys)
    ]


async def lock_keys(tx: Transaction) -> list[KeyRecord]:
    """Return every key, locked until the transaction ends."""
    await tx.execute(sql.keys_lock)
    return await keys(tx)


async def insert_key(tx: Transaction, key: KeyRecord) -> None:
    """Save a new key."""
    await tx.execute(sql.insert_key, key.kid, key.state.value, key.sealed, key.created_at, key.activated_at)


async def hand_over(tx: Transaction, current: str, following: str, at: datetime, retires_at: datetime) -> None:
    """The next key becomes the current one, the current one retires."""
    await tx.execute(sql.retire_key, current, retires_at)
    await tx.execute(sql.activate_key, following, at)


async def delete_retired_keys(tx: Transaction, now: datetime) -> None:
    """Remove keys whose last token is over."""
    await tx.execute(sql.delete_retired_keys, now)


def _password(row: Row) -> StoredPassword:
    return StoredPassword(row["password_hash"], row["password_version"])


def _user(row: Row) -> User:
    return User(
        id=row["id"],
        email=row["email"],
        name=row["name"],
        roles=tuple(row["roles"]),
        created_at=row["created_at"],
    )
