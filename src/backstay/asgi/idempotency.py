"""Idempotency keys: the same key gets the same answer, byte for byte, whoever dies in between.

A claim is made in the transaction that saves the operation, so both exist or neither. Whoever first ends the operation
(the request, an event, a job) keeps the answer in the transaction that ends it; every later one gets what was kept.

| a repeat finds                     | and gets                                                     |
|------------------------------------|--------------------------------------------------------------|
| no key                             | the claim; `operation_id` is its own                         |
| another body (see `digest`)        | 422 `idempotency-key-reused`                                 |
| an answer                          | that answer                                                  |
| no answer, its holder's time runs  | 409 `request-in-progress`                                    |
| no answer, its holder's time over  | the claim; `operation_id` is that of the operation to resume |
"""

import hashlib
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

import msgspec

from backstay.asgi.answers import JSON, Answer, encode, encode_json
from backstay.db import Component, Database, Queries, Row
from backstay.http.problems import BadRequest, Conflict, FieldError, Unprocessable
from backstay.ids import uuid7

COMPONENT = Component("idempotency", Path(__file__).parent / "migrations")
"""The tables of this module, for `Database.requires`."""
LOCKED_FOR = 5.0
"""Seconds for which a claim keeps repeats away; longer than the operation's deadline."""
KEEP = 24 * 3600.0
"""Seconds a key is remembered."""
PRUNE_BATCH = 1000
"""Keys forgotten in one transaction."""
MAX_KEY = 255
"""Characters of a key."""

T = TypeVar("T")
sql = Queries.load(__package__)
_canonical = msgspec.json.Encoder(order="sorted", decimal_format="string").encode
_VERSION = b"\x02"
_PARAMETER = re.compile(r"\$(\d+)")
_never_kept = frozenset({400, 401, 403, 413, 422, 429})


class Runs(Protocol):
    """What this module needs of a transaction."""

    async def fetchrow(self, sql: str, *args: object) -> Row | None:
        """Return the first row, or None."""

    async def fetchval(self, sql: str, *args: object) -> Any:
        """Return the first column of the first row, or None."""


class IdempotencyKey:
    """One key of one caller for one operation."""

    __slots__ = ("key", "operation", "operation_id", "principal")

    def __init__(self, principal: str, operation: str, key: str) -> None:
        self.principal = principal
        self.operation = operation
        self.key = key
        self.operation_id: UUID | None = None
        """After `claim`: the id of the operation, given or of the one to resume."""

    def __repr__(self) -> str:
        return f"IdempotencyKey({self.principal!r}, {self.operation!r}, {self.key!r})"

    @classmethod
    def of_header(cls, header: bytes | None, principal: str, operation: str) -> "IdempotencyKey":
        """Return the key in an `Idempotency-Key` header; raises `BadRequest` if there is none, or not a decent one."""
        if header is None:
            raise BadRequest("send an Idempotency-Key header, new for each operation", slug="idempotency-key-missing")
        if not 1 <= len(header) <= MAX_KEY or not all(0x20 < byte < 0x7F for byte in header):
            detail = f"an Idempotency-Key has 1 to {MAX_KEY} printable ASCII characters without spaces"
            raise BadRequest(detail, slug="idempotency-key-malformed")
        return cls(principal, operation, header.decode("ascii"))

    async def claim(
        self, tx: Runs, body: Any, operation_id: UUID | None = None, locked_for: float = LOCKED_FOR
    ) -> Answer[Any] | None:
        """Claim the key within the transaction that saves the operation; the stored answer if it has ended already.

        None means: do it. `self.operation_id` equal to the one given is a new operation, another is one to resume.

        Raises:
            Unprocessable: the key was used with another body.
            Conflict: another request works on it (`request-in-progress`).
        """
        now, before = digest(body), _digest_before(body)
        identity = (self.principal, self.operation, self.key)
        claimed = (now, operation_id or uuid7(), locked_for, before)
        self.operation_id = await tx.fetchval(sql.claim_key, *identity, *claimed)
        if self.operation_id is not None:
            return None
        row = await tx.fetchrow(sql.read_key, *identity)
        if row is not None and row["body_hash"] not in (now, before):
            detail = "this Idempotency-Key was used for another request; use a new one"
            raise Unprocessable(
                detail, slug="idempotency-key-reused", errors=[FieldError("", "differs from the first")]
            )
        if row is None or row["status"] is None:
            detail = "the first request with this key is still being worked on"
            raise Conflict("request-in-progress", detail, headers={"Retry-After": "1"})
        self.operation_id = row["operation_id"]
        return _stored(row)

    def arguments(self, body: Any, operation_id: UUID, locked_for: float = LOCKED_FOR) -> tuple[object, ...]:
        """What `claiming` takes as its parameters, for a statement of the caller's own."""
        self.operation_id = operation_id
        return self.principal, self.operation, self.key, digest(body), operation_id, locked_for

    async def answer(self, tx: Runs, body: T, *, status: int = 200, headers: dict[str, str] | None = None) -> Answer[T]:
        """Keep the answer of the claimed operation; returns the one to send (the first kept, if there was one)."""
        if self.operation_id is None:
            raise RuntimeError("claim the key before answering it")
        return await answer(tx, self.operation_id, Answer(body, status, headers or {}), operation=self.operation)


async def answer(tx: Runs, operation_id: UUID, given: Answer[T], *, operation: str | None = None) -> Answer[T]:
    """Keep the answer of an operation in the transaction that ends it, whoever does; returns the one to send.

    An operation that has an answer keeps it. One for which no key was claimed gives `given` back.

    Raises:
        ValueError: an answer with this status is never kept, for the same request may fare better later.
    """
    ours = to_keep(given)
    kept = await tx.fetchval(sql.answer_key, *keeping_arguments(ours, operation_id, operation=operation))
    if kept is not None:
        return ours
    return await stored(tx, operation_id, operation=operation) or ours


def to_keep(given: Answer[T]) -> Answer[T]:
    """Return an answer as it is kept and sent, now and to every repeat; ValueError as `answer`."""
    if not is_kept(given):
        raise ValueError(f"an answer with status {given.status} is not kept: raise a Problem instead")
    headers = {"content-type": JSON, **{name.lower(): value for name, value in given.headers.items()}}
    headers = {name: headers[name] for name in sorted(headers, key=_as_kept)}
    return replace(given, body=encode(given.body), headers=headers)


def is_kept(given: Answer[Any]) -> bool:
    """Return whether an answer is stored: not where the same request may fare better later."""
    return given.status not in _never_kept and given.status < 500


def digest(body: Any) -> bytes:
    """Return the stored form of a request's body: a version byte and a SHA-256.

    It covers the canonical JSON of what was sent. A field that holds its default counts as not sent, so that a release
    may add an optional field and repeats of older requests still match.
    """
    return _VERSION + hashlib.sha256(_hashed(body)).digest()


def _digest_before(body: Any) -> bytes:
    """Return the digest as 0.1.0 stored it, over all fields; its rows are matched until they are pruned."""
    return hashlib.sha256(_canonical(body)).digest()


def _hashed(body: Any) -> bytes:
    return _canonical(_sent(body))


def _sent(value: Any) -> Any:
    """Return a body as plain values, without the fields that hold their default."""
    if isinstance(value, msgspec.Struct):
        config = type(value).__struct_config__
        given: dict[str, Any] = {config.tag_field: config.tag} if config.tag_field else {}
        for field in _fields(type(value)):
            held = getattr(value, field.name)
            if held is not msgspec.UNSET and held != _default(field):
                given[field.encode_name] = _sent(held)
        return given
    if isinstance(value, dict):
        return {name: _sent(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_sent(part) for part in value]
    return value


@lru_cache(maxsize=256)
def _fields(kind: type[msgspec.Struct]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(kind)


def _default(field: msgspec.structs.FieldInfo) -> Any:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def claiming(first: int = 1) -> str:
    """Return the INSERT of a new claim for a caller's own CTE; parameters from `$first` on: `IdempotencyKey.arguments`.

    It gives one row, or none if the key is known: then nothing else may happen, and `IdempotencyKey.claim` says why.
    """
    return _numbered(sql.claim_new_key, first)


def keeping(first: int = 1, *, where: str = "true") -> str:
    """Return the UPDATE that keeps an answer, as `answer` does, for a caller's own CTE; see `keeping_arguments`."""
    return _numbered(sql.answer_key, first, where)


def keeping_arguments(ours: Answer[Any], operation_id: UUID, *, operation: str | None = None) -> tuple[object, ...]:
    """What `keeping` takes as its parameters; `ours` is made by `to_keep`."""
    return operation_id, operation, ours.status, encode_json(ours.headers).decode(), ours.body


async def stored(tx: Runs, operation_id: UUID, *, operation: str | None = None) -> Answer[Any] | None:
    """Return the kept answer of an operation; None if it has none."""
    row = await tx.fetchrow(sql.read_answer, operation_id, operation)
    return None if row is None else _stored(row)


async def release(tx: Runs, operation_id: UUID) -> None:
    """Give up the claim of an operation that came to no answer worth storing; a repeat does it anew."""
    await tx.fetchval(sql.release_key, operation_id)


async def prune(db: Database, *, keep: float = KEEP) -> None:
    """Forget keys older than `keep` seconds."""
    while True:
        status = await db.execute(sql.prune_keys, keep, PRUNE_BATCH)
        if status != f"DELETE {PRUNE_BATCH}":
            return


def _numbered(statement: str, first: int, where: str = "true") -> str:
    shifted = _PARAMETER.sub(lambda found: f"${int(found[1]) + first - 1}", statement)
    return shifted.replace("RETURNING", f"AND {where} RETURNING") if where != "true" else shifted


def _as_kept(name: str) -> tuple[int, str]:
    """Return the order in which jsonb gives names back: so the first answer goes out as its repeats will."""
    return len(name), name


def _stored(row: Row) -> Answer[Any]:
    return Answer(row["body"], row["status"], msgspec.json.decode(row["headers"], type=dict[str, str]))


__all__ = [
    "COMPONENT",
    "KEEP",
    "LOCKED_FOR",
    "MAX_KEY",
    "IdempotencyKey",
    "answer",
    "claiming",
    "digest",
    "is_kept",
    "keeping",
    "keeping_arguments",
    "prune",
    "release",
    "stored",
    "to_keep",
]
