"""Idempotency keys in a service: those of `backstay.asgi.idempotency`, and the job that forgets old ones."""

from functools import partial

from backstay.asgi.idempotency import (
    COMPONENT,
    KEEP,
    LOCKED_FOR,
    MAX_KEY,
    IdempotencyKey,
    answer,
    claiming,
    digest,
    keeping,
    keeping_arguments,
    prune,
    stored,
    to_keep,
)
from backstay.db import Database
from backstay.runtime.jobs import Job, every

PRUNE_EVERY = 600.0
"""Seconds between two prunings."""


def pruning(db: Database, *, seconds: float = PRUNE_EVERY, keep: float = KEEP) -> Job:
    """Return the job that forgets keys older than `keep` seconds."""
    return every(seconds, partial(prune, db, keep=keep), name="prune-idempotency-keys")


__all__ = [
    "COMPONENT",
    "KEEP",
    "LOCKED_FOR",
    "MAX_KEY",
    "PRUNE_EVERY",
    "IdempotencyKey",
    "answer",
    "claiming",
    "digest",
    "keeping",
    "keeping_arguments",
    "prune",
    "pruning",
    "stored",
    "to_keep",
]
