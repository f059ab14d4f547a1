"""The seeded bugs stay what they are meant to be: a mutant that only crashes proves nothing about the checker."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.chaos import mutants
from tests.chaos.model import Role

from backstay.messaging import applier
from backstay.messaging.lane import Lane
from backstay.outbox import MemoryStore
from backstay.outbox.leases import Leases


def role(mutant: str) -> Role:
    return Role("relay-0", Path(), "", "", 1, mutant, {})


class Heard:
    """A database that remembers what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    async def execute(self, *args: Any) -> None:
        self.said.append(args[1:])


async def test_the_unfenced_relay_deletes_what_it_is_told() -> None:
    """It deletes these very rows, and says that all its epochs still count."""
    db = Heard()
    session = mutants.session(role("no-fence"), object(), db)  # type: ignore[arg-type]

    assert await session.delete(uuid4(), {3: [1, 2], 4: [7]}, {3: 1, 4: 1}) == {3, 4}
    assert db.said == [([3, 3, 4], [1, 2, 7])]


async def test_the_cursor_skips_what_comes_late() -> None:
    """It reads like the real one, but nothing below what it has seen."""
    store = MemoryStore()
    late, early = store.draw("moves", "k", "x"), store.draw("moves", "k", "x")
    async with store.open() as real:
        session = mutants.session(role("cursor"), real, Heard())  # type: ignore[arg-type]
        how: dict[str, Any] = {"limit": 9, "per_shard": 9, "known": [], "topics": [], "keys": [], "around": False}
        store.commit(early)
        assert await session.read([early.shard], **how) == [early]
        store.commit(late)
        assert await session.read([early.shard], **how) == []


async def test_without_an_inbox_all_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """It answers as the real one does: what is new, and whether a key is held."""
    monkeypatch.setattr(applier, "claim", applier.claim)  # type: ignore[attr-defined]
    mutants.consumer(role("no-inbox"))
    ids = [uuid4(), uuid4()]

    assert await applier.claim(None, "g", ids) == (set(ids), False)  # type: ignore[attr-defined]


def test_what_is_replaced_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that is seeded in a method which nobody calls any more is none."""
    for kind, names in ((Lane, ("add", "_next")), (Leases, ("valid", "seen"))):
        for name in names:
            monkeypatch.setattr(kind, name, getattr(kind, name))
    before = (Lane.add, Lane._next, Leases.valid, Leases.seen)
    mutants.consumer(role("offset-first"))
    mutants.relay(role("no-fence"))

    assert all(
        new is not old for new, old in zip((Lane.add, Lane._next, Leases.valid, Leases.seen), before, strict=True)
    )
