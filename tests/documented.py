"""Compares every answer that a test gets with the OpenAPI document of the service: no status comes as a surprise."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from backstay.dev.web import Reply, Web

PUBLIC = ("auth", "catalog", "orders", "inventory", "notifications", "analytics")


class Documents:
    """The operations of some OpenAPI documents, with the statuses that each may answer."""

    def __init__(self) -> None:
        self._operations: list[tuple[str, re.Pattern[str], frozenset[int]]] = []

    def add(self, document: Mapping[str, Any]) -> None:
        """Take the operations of a document."""
        for path, operations in document["paths"].items():
            pattern = re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))
            for method, operation in operations.items():
                statuses = frozenset(map(int, operation["responses"]))
                self._operations.append((method.upper(), pattern, statuses))

    def check(self, method: str, target: str, status: int) -> None:
        """Fail for a status that the operation's document doesn't have; what is no operation isn't looked at."""
        for statuses in self._of(method, target.partition("?")[0]):
            assert status in statuses, f"{method} {target} answered {status}, its document has {sorted(statuses)}"

    def _of(self, method: str, path: str) -> Iterator[frozenset[int]]:
        wanted = "GET" if method == "HEAD" else method
        for known, pattern, statuses in self._operations:
            if known == wanted and pattern.fullmatch(path):
                yield statuses


class DocumentedWeb(Web):
    """The gateway, each of whose answers is compared with the documents of the services behind it."""

    documents: Documents | None = None

    async def call(self, method: str, path: str, body: Any = None, **how: Any) -> Reply:
        reply = await super().call(method, path, body, **how)
        if self.documents is None:
            self.documents = await self._read()
        self.documents.check(method, path, reply.status)
        return reply

    async def _read(self) -> Documents:
        documents = Documents()
        for service in PUBLIC:
            found = await super().call("GET", f"/api/v1/openapi/{service}.json")
            if found.status == 200:  # a test may have stopped the service
                documents.add(found.body)
        return documents
