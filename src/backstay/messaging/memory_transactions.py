"""Transactions of the in-memory broker: what is aborted was never there, and an older producer of an id is fenced."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from backstay.messaging.errors import Fenced, PublishError, TransactionLost
from backstay.messaging.record import Record


@dataclass(slots=True)
class Coordinator:
    """The broker's state of transactional ids: the newest producer of each, and the last mark."""

    newest: dict[str, object] = field(default_factory=dict)
    marks: dict[str, str] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)


class MemoryTransactions:
    """A `TransactionalProducer` into a memory broker."""

    def __init__(
        self,
        ident: str,
        coordinator: Coordinator,
        refuse: Callable[[Record], PublishError | None],
        store: Callable[[Sequence[Record]], None],
    ) -> None:
        self.ident = ident
        self._known, self._refuse, self._store = coordinator, refuse, store
        self._purged = False

    async def __aenter__(self) -> Self:
        self._known.newest[self.ident] = self
        self._known.opened.append(self.ident)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.purge()

    async def marks(self) -> frozenset[str]:
        """As in `TransactionalProducer`."""
        return frozenset({self._known.marks[self.ident]} if self.ident in self._known.marks else ())

    async def publish(self, records: Sequence[Record], mark: str) -> list[PublishError | None]:
        """As in `TransactionalProducer`."""
        await asyncio.sleep(0)
        self._check()
        found: list[Any] = [self._refuse(record) for record in records]
        if any(found):
            aborted = PublishError("producer", "the transaction was aborted")
            return [error or aborted for error in found]
        self._store(records)
        self._known.marks[self.ident] = mark
        return found

    def purge(self) -> None:
        """As in `TransactionalProducer`."""
        self._purged = True

    def _check(self) -> None:
        if self._known.newest.get(self.ident) is not self:
            raise Fenced(f"{self.ident}: a newer producer has this id")
        if self._purged:
            raise TransactionLost(f"{self.ident}: purged")
