"""What tests of the shop's services share: a caller of a service's API, and deliveries to its handlers."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from tests.documented import Documents

from backstay.auth import StaticKeys, TokenVerifier
from backstay.db import Database
from backstay.http import HttpClient
from backstay.ids import uuid7
from backstay.messaging import Envelope, Event, MemoryBroker, Record, event_spec
from backstay.service import Running, Service
from backstay.testing.issuer import TokenIssuer
from shop.topology import TOPICS

ADMIN = "catalog:write inventory:read inventory:write analytics:read audit:read"
ADMIN_ID = UUID("01890000-0000-7000-8000-00000000000a")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, its JSON decoded."""

    status: int
    headers: Any
    body: Any

    @property
    def pointers(self) -> list[str]:
        """Which fields a problem names."""
        return [error["pointer"] for error in self.body.get("errors", [])]

    @property
    def slug(self) -> str:
        """Which problem it is."""
        return str(self.body["type"]).rpartition(":")[2]


@dataclass(frozen=True, slots=True)
class Caller:
    """Calls a running service as an admin, a customer (by id), or nobody (None)."""

    running: Running
    http: HttpClient
    issuer: TokenIssuer
    documents: Documents

    async def ask(
        self, method: str, path: str, body: Any = None, *, who: Any = "admin", headers: Mapping[str, str] | None = None
    ) -> Reply:
        sent = {"content-type": "application/json", **(headers or {})}
        if who is not None:
            sent["authorization"] = f"Bearer {self.token(who)}"
        content = b"" if body is None else msgspec.json.encode(body)
        got = await self.http.request(
            "127.0.0.1",
            self.running.port,
            method,
            f"/api/v1{path}",
            headers=list(sent.items()),
            body=content,
            timeout=10.0,
        )
        self.documents.check(method, f"/api/v1{path}", got.status)
        return Reply(got.status, got.headers, msgspec.json.decode(got.body) if got.body else None)

    async def get(self, path: str, **how: Any) -> Reply:
        return await self.ask("GET", path, **how)

    async def all(self, path: str, **how: Any) -> list[Any]:
        """Every item of a list, page by page."""
        items, cursor = [], ""
        while True:
            reply = await self.get(path + cursor, **how)
            assert reply.status == 200, reply.body
            items += reply.body["items"]
            if reply.body["next"] is None:
                return items
            cursor = f"{'&' if '?' in path else '?'}cursor={reply.body['next']}"

    def token(self, who: Any) -> str:
        if who == "admin":
            return self.issuer.token(str(ADMIN_ID), scope=ADMIN, roles=("admin",))
        return self.issuer.token(str(who))


Calling = Callable[..., AbstractAsyncContextManager[Caller]]


@pytest.fixture
def calling() -> Calling:
    """`async with calling(service) as api:` runs a service and calls it; with a broker in all roles, else as api."""
    issuer = TokenIssuer(audience="shop")

    @asynccontextmanager
    async def run(service: Service, broker: MemoryBroker | None = None) -> AsyncIterator[Caller]:
        service.verifier = TokenVerifier(issuer.issuer, issuer.audience, StaticKeys(issuer.jwks), service=service.name)
        service.broker = broker
        async with service.running(None if broker else ("api",)) as running, HttpClient() as http:
            documents = Documents()
            found = await http.request("127.0.0.1", running.port, "GET", "/openapi.json", timeout=10.0)
            documents.add(msgspec.json.decode(found.body))
            yield Caller(running, http, issuer, documents)

    return run


class Deliveries:
    """Stands in for a consumer without its inbox: the same event may be delivered again, in any order.

    What holds here holds for an old event that is replayed after its inbox row was pruned.
    """

    def __init__(self, db: Database) -> None:
        self._db = db
        self._handlers: dict[str, tuple[type[Event], Any, Any]] = {}

    def on(self, kind: type[Event], *, locks: Any = None) -> Any:
        def remember(handler: Any) -> Any:
            self._handlers[event_spec(kind).type] = (kind, handler, locks)
            return handler

        return remember

    def on_batch(self, *kinds: type[Event], locks: Any = None) -> Any:
        def remember(handler: Any) -> Any:
            async def alone(event: Event, tx: Any, envelope: Any) -> None:
                more = [[envelope]] if handler.__code__.co_argcount == 3 else []
                await handler([event], tx, *more)

            for kind in kinds:
                self._handlers[event_spec(kind).type] = (kind, alone, locks)
            return handler

        return remember

    async def __call__(self, event: Event, *, event_id: UUID | None = None) -> None:
        """Deliver an event as it arrives from the wire, in a transaction of its own, after its locks are taken."""
        spec = event_spec(event)
        kind, handler, locks = self._handlers[spec.type]
        read = msgspec.json.decode(msgspec.json.encode(event), type=kind)
        record = Record(spec.topic, spec.key_of(event).encode(), b"")
        envelope = Envelope(event_id or uuid4(), spec.type, None, None, None, None, record)
        async with self._db.transaction() as tx:
            if hasattr(locks, "take"):
                await locks.take(tx, sorted(locks.keys(read)))
            if handler.__code__.co_argcount == 3:
                await handler(read, tx, envelope)
            else:
                await handler(read, tx)


@pytest.fixture
def deliveries() -> type[Deliveries]:
    """Make one with a database, register handlers with it, then call it with events."""
    return Deliveries


@pytest.fixture
def published() -> Callable[[Database], Any]:
    """The events in a database's outbox, as `(type, payload)` in the order of their append."""

    async def read(db: Database) -> list[tuple[str, Any]]:
        rows = await db.fetch("SELECT type, payload FROM outbox ORDER BY seq")
        return [(row["type"], msgspec.json.decode(row["payload"])) for row in rows]

    return read


@pytest.fixture
async def broker() -> MemoryBroker:
    """A broker in memory with the shop's topics."""
    made = MemoryBroker()
    await made.create_topics(TOPICS)
    return made


@pytest.fixture
def publish(broker: MemoryBroker) -> Callable[..., Any]:
    """Publish events as another service's relay would."""

    async def send(*events: Event) -> None:
        async with broker.producer() as producer:
            assert not any(await producer.publish([_record(event) for event in events]))

    return send


@pytest.fixture
def read(broker: MemoryBroker) -> Callable[[str], list[tuple[str, Any]]]:
    """What a topic holds, as `(type, payload)`."""

    def topic(name: str) -> list[tuple[str, Any]]:
        return [
            (Envelope.read(found).type, msgspec.json.decode(found.value or b"null")) for found in broker.records(name)
        ]

    return topic


def _record(event: Event) -> Record:
    spec = event_spec(event)
    return Envelope.record_for(
        topic=spec.topic,
        key=spec.key_of(event),
        id=uuid7(),
        type=spec.type,
        source="/test",
        data=msgspec.json.encode(event),
    )
