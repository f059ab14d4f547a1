"""`backstay`: the platform's parts from the command line, next to applications that are not ours.

Everything is imported where it is used: a command needs the extras of its own part, and this module needs none.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, cast
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import UUID

from backstay.errors import BackstayError, ConfigError

if TYPE_CHECKING:
    import typer

    from backstay.auth import TokenVerifier
    from backstay.discovery import Registry
    from backstay.gateway import RouteTable
    from backstay.messaging import DeadLetter
    from backstay.outbox import OutboxTable

KEYS_TIMEOUT = 5.0  # seconds for an issuer's key set
KEYS_LIMIT = 1024 * 1024  # bytes of it


ROUTE = "outbox.event.{}"


def relay(
    dsn: str,
    kafka: str,
    name: str = "relay",
    source: str = "",
    lease: float = 10.0,
    flavor: str = "apache",
    strict: bool = False,
    wal: bool = False,
    table: str = "",
    shape: str = "debezium",
    route: str = ROUTE,
) -> None:
    """Publish the outbox of the database DSN to KAFKA (host:port), until SIGTERM.

    SOURCE is what events say they come from (/service/<database>); LEASE is seconds until a dead relay is replaced;
    --strict publishes by transactions; --wal reads the write-ahead log instead of polling. --table is an outbox table
    of somebody else's, of SHAPE debezium or quarkus.
    """
    options = {"lease": lease, "strict": strict, "wal": wal, "table": _table(table, shape, route)}
    _run(_relay(dsn, kafka, name, source, flavor, options))


def outbox_adopt(dsn: str, table: str, shape: str = "debezium", apply: bool = False) -> None:
    """Print the statements that an outbox TABLE of somebody else's needs before our relay can publish it.

    They lock and rewrite it; --apply executes them.
    """
    _run(_outbox_adopt(dsn, table, shape, apply))


def outbox_status(dsn: str, table: str = "", shape: str = "debezium", route: str = ROUTE) -> None:
    """Show what waits in the outbox of the database DSN, and which relays are there."""
    _run(_outbox_status(dsn, _table(table, shape, route)))


def outbox_park(dsn: str, topic: str, key: str, reason: str = "an operator said so") -> None:
    """Publish nothing of KEY of TOPIC until it is resumed; the rest flows on."""
    _run(_outbox_park(dsn, topic, key, reason))


def outbox_resume(dsn: str, topic: str, key: str) -> None:
    """Let the parked KEY of TOPIC go on, in its order."""
    _run(_outbox_resume(dsn, topic, key))


def outbox_skip(
    dsn: str, topic: str, key: str, event: str = "", table: str = "", shape: str = "debezium", route: str = ROUTE
) -> None:
    """Leave out the first event of a parked KEY (or --event ID) for good, and let the key go on."""
    _run(_outbox_skip(dsn, topic, key, event, _table(table, shape, route)))


def outbox_replay(
    dsn: str,
    topic: str,
    key: str,
    payload: Path | None = None,
    event: str = "",
    table: str = "",
    shape: str = "debezium",
    route: str = ROUTE,
) -> None:
    """Let a parked KEY go on, its first event (or --event ID, also a skipped one) with the JSON of --payload FILE."""
    _run(_outbox_replay(dsn, topic, key, payload, event, _table(table, shape, route)))


def list_dead_letters(dsn: str, group: str = "", type: str = "", replayed: bool = False) -> None:  # noqa: A002
    """List the dead letters in the database DSN: the open ones, or those replayed since."""
    _run(_list_dead_letters(dsn, group, type, replayed))


def replay_dead_letters(
    dsn: str,
    id: list[int] | None = None,  # noqa: A002
    group: str = "",
    type: str = "",  # noqa: A002
    all: bool = False,  # noqa: A002
    dry_run: bool = False,
) -> None:
    """Ask the running consumer to handle dead letters again: by --id, --group, --type, or --all."""
    _run(_replay_dead_letters(dsn, id, group, type, all, dry_run))


def discard_dead_letters(dsn: str, id: list[int], reason: str = "", actor: str = "") -> None:  # noqa: A002
    """Give up dead letters for a --reason: their effect will never happen, and what waits for them is handled."""
    _run(_discard_dead_letters(dsn, id, reason, actor))


def audit_dead_letters(dsn: str, limit: int = 100) -> None:
    """List who replayed or discarded which dead letters, the latest first."""
    _run(_audit_dead_letters(dsn, limit))


def gateway(
    file: Path,
    host: str = "127.0.0.1",
    port: int = 8080,
    eureka: str = "",
    profile: str = "",
    issuer: str = "",
    audience: str = "",
    jwks: str = "",
    open: bool = False,  # noqa: A002 - the option's name
) -> None:
    """Serve the routes of a Spring Cloud Gateway FILE (application.yml), until SIGTERM.

    EUREKA is the address of the registry for lb:// routes, such as http://127.0.0.1:8761/eureka; PROFILE is a list of
    active profiles, separated by commas. Routes that aren't public want an access token of ISSUER for AUDIENCE, signed
    by a key found at JWKS (default: the issuer's /.well-known/jwks.json; lb:// works); --open makes every route public.
    """
    _run(_gateway(file, host, port, eureka, profile, Issuer(issuer, audience, jwks), open))


def registry(host: str = "127.0.0.1", port: int = 8761) -> None:
    """Serve a Eureka registry, until SIGTERM."""
    from backstay.discovery import RegistryServer

    _log()
    RegistryServer(host, port).run()


def app() -> "typer.Typer":
    """The commands, for typer."""
    import typer

    made = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
    outbox = typer.Typer(help="The transactional outbox.", no_args_is_help=True)
    letters = typer.Typer(help="Events that could not be handled.", no_args_is_help=True)
    made.command()(relay)
    made.command()(gateway)
    made.command()(registry)
    outbox.command("adopt")(outbox_adopt)
    outbox.command("status")(outbox_status)
    outbox.command("park")(outbox_park)
    outbox.command("resume")(outbox_resume)
    outbox.command("skip")(outbox_skip)
    outbox.command("replay")(outbox_replay)
    letters.command("list")(list_dead_letters)
    letters.command("replay")(replay_dead_letters)
    letters.command("discard")(discard_dead_letters)
    letters.command("audit")(audit_dead_letters)
    made.add_typer(outbox, name="outbox")
    made.add_typer(letters, name="dead-letters")
    return made


def main() -> None:
    """The entry point of the command `backstay`."""
    try:
        made = app()
    except ImportError as error:
        _fail(f"the command line needs the extra 'cli' (pip install 'backstay[cli]'): {error}")
    made()


async def _relay(dsn: str, kafka: str, name: str, source: str, flavor: str, options: dict[str, Any]) -> None:
    from backstay.db import Database
    from backstay.messaging import KafkaBroker
    from backstay.outbox import Outbox

    _log()
    if flavor not in ("apache", "embedded"):
        raise ConfigError(f"--flavor {flavor!r}: must be apache or embedded")
    db = Database(_database_name(dsn), dsn=dsn, max_size=2)
    broker = KafkaBroker(_address(kafka), flavor=flavor, client_id=f"backstay-{name}")  # type: ignore[arg-type]
    try:
        async with db, Outbox(db, source=source or None).relay(broker, name=name, **options) as running:
            _say(f"relaying {db.name} to {_address(kafka)}")
            await _until_stopped()
        counts = running.statistics()
        _say(f"stopped: {counts.published} published, {counts.failed} repeated")
    finally:
        await broker.aclose()


async def _outbox_adopt(dsn: str, table: str, shape: str, apply: bool) -> None:
    from backstay.db import Database

    wanted = _table(table, shape, ROUTE)
    assert wanted is not None
    _say(wanted.migration + ";")
    if apply:
        async with Database(_database_name(dsn), dsn=dsn) as db, db.transaction() as tx:
            for statement in wanted.migration.split(";\n"):
                await tx.execute(statement, timeout=3600.0)
        _say(f"-- {table} is ready for a relay")


async def _outbox_status(dsn: str, table: "OutboxTable | None") -> None:
    from backstay.db import Database
    from backstay.outbox.status import read_status

    async with Database(_database_name(dsn), dsn=dsn) as db:
        status = await read_status(db, table=table)
    _say(f"pending      {status.pending}{'+' if status.truncated else ''}")
    _say(f"oldest       {status.oldest_age:.1f} s")
    _say(f"unowned      {status.unowned} of {status.shards} shards")
    for relay in status.relays:
        _say(f"relay        {relay.name} ({relay.id}): {relay.shards} shards")
    for one in status.parked:
        _say(f"parked       {one.topic} {one.key!r} since {one.parked_at:%Y-%m-%dT%H:%M:%SZ}: {one.rows} events,")
        _say(f"             first {one.head or 'not gathered yet'}: {one.reason}")
    for topic, count in status.topics.items():
        _say(f"topic        {topic}: {count} of the first {sum(status.topics.values())}")


async def _outbox_park(dsn: str, topic: str, key: str, reason: str) -> None:
    from backstay.db import Database
    from backstay.outbox import park

    async with Database(_database_name(dsn), dsn=dsn) as db:
        fresh = await park(db, topic, key, reason)
    _say(f"key {key!r} of topic {topic!r} {'is' if fresh else 'was already'} parked")


async def _outbox_resume(dsn: str, topic: str, key: str) -> None:
    from backstay.db import Database
    from backstay.outbox import resume

    async with Database(_database_name(dsn), dsn=dsn) as db:
        count = await resume(db, topic, key)
    _say(f"key {key!r} of topic {topic!r} goes on: {count} events")


async def _outbox_skip(dsn: str, topic: str, key: str, event: str, table: "OutboxTable | None") -> None:
    from backstay.db import Database
    from backstay.outbox import skip

    ident = _uuid(event)
    async with Database(_database_name(dsn), dsn=dsn) as db:
        skipped = await skip(db, topic, key, ident, table=table)
    _say(f"event {skipped} is skipped (it stays in outbox_parked); key {key!r} of topic {topic!r} goes on")


async def _outbox_replay(
    dsn: str, topic: str, key: str, payload: Path | None, event: str, table: "OutboxTable | None"
) -> None:
    from backstay.db import Database
    from backstay.outbox import replay

    ident = _uuid(event)
    try:
        text = await asyncio.to_thread(payload.read_text, encoding="utf-8") if payload else None
    except OSError as error:
        raise ConfigError(f"{payload}: {error.strerror}") from error
    async with Database(_database_name(dsn), dsn=dsn) as db:
        replayed = await replay(db, topic, key, text, ident, table=table)
    _say(f"event {replayed} is replayed{' with its new payload' if text else ''}; key {key!r} of {topic!r} goes on")


async def _list_dead_letters(dsn: str, group: str, kind: str, replayed: bool) -> None:
    from backstay.db import Database
    from backstay.messaging import list_dead_letters as letters

    async with Database(_database_name(dsn), dsn=dsn) as db:
        found = await letters(db, group=group or None, type=kind or None, replayed=replayed)
    for letter in found:
        _say(_line(letter))
    _say(f"{len(found)} dead letters")


async def _replay_dead_letters(
    dsn: str, ids: list[int] | None, group: str, kind: str, everything: bool, dry_run: bool
) -> None:
    from backstay.db import Database
    from backstay.messaging import replay

    if not (ids or group or kind or everything):
        raise ConfigError("nothing chosen: give --id, --group, --type, or --all")
    async with Database(_database_name(dsn), dsn=dsn) as db:
        found = await replay(db, ids=ids or None, group=group or None, type=kind or None, dry_run=dry_run)
    for letter in found:
        _say(_line(letter))
    _say(f"{len(found)} dead letters {'would be' if dry_run else 'are'} asked for")


@dataclass(frozen=True, slots=True)
class Issuer:
    """Who signs the access tokens that a gateway accepts; all empty when nobody does."""

    name: str
    audience: str
    jwks: str

    def check(self) -> None:
        """Raise ConfigError unless all that is needed is there, or nothing at all."""
        if (self.name or self.jwks or self.audience) and not (self.name and self.audience):
            raise ConfigError("--issuer and --audience go together; --jwks needs both")

    @property
    def keys(self) -> str:
        """Where the keys are."""
        return self.jwks or self.name.rstrip("/") + "/.well-known/jwks.json"


async def _gateway(file: Path, host: str, port: int, eureka: str, profile: str, issuer: Issuer, is_open: bool) -> None:
    from backstay.discovery import EurekaClient, Registry, StaticRegistry
    from backstay.gateway import Gateway
    from backstay.resilience import Registry as Policies

    issuer.check()
    routes = await _routes(file, profile, issuer, is_open)
    policies = await asyncio.to_thread(Policies.from_yaml, file, only=routes.breakers)
    async with AsyncExitStack() as stack:
        known: Registry = await stack.enter_async_context(EurekaClient(eureka)) if eureka else StaticRegistry({})
        verifier = await _verifier(stack, issuer, known) if issuer.name else None
        gateway = Gateway(routes, known, verifier=verifier, policies=policies, host=host, port=port)
        await _serve(gateway, f"gateway for {file}")


async def _routes(file: Path, profile: str, issuer: Issuer, is_open: bool) -> "RouteTable":
    from backstay.gateway import RouteTable, read_definition

    try:
        text = await asyncio.to_thread(file.read_text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from error
    profiles = frozenset(one.strip() for one in profile.split(",") if one.strip())
    table = RouteTable(read_definition(text, os.environ, profiles=profiles))
    guarded = [route for route in table.routes if not route.public]
    if is_open:
        for route in guarded:
            route.public = True
    elif guarded and not issuer.name:
        names = ", ".join(route.id for route in guarded)
        raise ConfigError(
            f"{file}: these routes want an access token, but nobody is named who signs one: {names}. Give --issuer and "
            "--audience, or make a route public (metadata: public: true), or all of them (--open)"
        )
    return table


async def _verifier(stack: AsyncExitStack, issuer: Issuer, known: "Registry") -> "TokenVerifier":
    from backstay.auth import JwksCache, TokenVerifier

    keys = await stack.enter_async_context(JwksCache(await _key_source(stack, issuer.keys, known)))
    return TokenVerifier(issuer.name, issuer.audience, keys)


async def _key_source(stack: AsyncExitStack, url: str, known: "Registry") -> Callable[[], Awaitable[bytes]]:
    """What fetches the keys: by the standard library where it takes TLS, which our own client doesn't speak."""
    from backstay.http import HttpClient
    from backstay.service.client import Client

    if url.startswith("https://"):
        return lambda: asyncio.to_thread(_fetch, url)
    client = Client(url)
    client.bind(await stack.enter_async_context(HttpClient()), known, None)

    async def fetch() -> bytes:
        return (await client.request("GET", "")).body

    return fetch


def _fetch(url: str) -> bytes:
    with urlopen(url, timeout=KEYS_TIMEOUT) as answer:  # noqa: S310 - only https comes here
        return cast(bytes, answer.read(KEYS_LIMIT))


async def _serve(server: AbstractAsyncContextManager[Any], what: str) -> None:
    async with server as running:
        _say(f"{what} on http://{running.host}:{running.port}")
        await _until_stopped()


async def _until_stopped() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _log() -> None:
    handler = logging.StreamHandler()
    line = "%(asctime)s %(levelname)s %(message)s %(reason)s"
    handler.setFormatter(logging.Formatter(line, defaults={"reason": ""}))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _line(letter: "DeadLetter") -> str:
    asked = " (asked for)" if letter.replay_requested_at and not letter.replayed_at else ""
    where = f"{letter.record.topic}/{letter.record.partition}@{letter.record.offset}"
    return f"{letter.id}  {letter.group}  {letter.type or '?'}  {where}  {letter.cause}{asked}"


async def _discard_dead_letters(dsn: str, ids: list[int], reason: str, actor: str) -> None:
    from backstay.db import Database
    from backstay.messaging import discard

    if not reason:
        raise ConfigError("no reason given: whoever reads the audit later wants one, add --reason")
    async with Database(_database_name(dsn), dsn=dsn) as db:
        found = await discard(db, ids, reason=reason, actor=actor or None)
    for letter in found:
        _say(_line(letter))
    missing = sorted(set(ids) - {letter.id for letter in found})
    _say(f"{len(found)} dead letters are discarded" + (f"; not open: {missing}" if missing else ""))


async def _audit_dead_letters(dsn: str, limit: int) -> None:
    from backstay.db import Database
    from backstay.messaging import audit

    async with Database(_database_name(dsn), dsn=dsn) as db:
        found = await audit(db, limit=limit)
    for one in found:
        asked = ", ".join(f"{name}={value}" for name, value in one.filters.items())
        _say(f"{one.at:%Y-%m-%dT%H:%M:%SZ}  {one.actor}  {one.action}  {list(one.letters)}  {asked}")
    _say(f"{len(found)} decisions")


def _table(name: str, shape: str, route: str) -> "OutboxTable | None":
    """The outbox table of somebody else's that was asked for; None for our own."""
    if not name:
        return None
    from dataclasses import replace

    from backstay.outbox import DEBEZIUM, QUARKUS

    shapes = {"debezium": DEBEZIUM, "quarkus": QUARKUS}
    if shape not in shapes:
        _fail(f"--shape {shape!r}: must be debezium or quarkus")
    try:
        return replace(shapes[shape], table=name, route=route)
    except ConfigError as error:
        _fail(str(error))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        raise ConfigError(f"--event {text!r}: is no UUID") from None


def _address(kafka: str) -> str:
    return kafka.removeprefix("kafka://").rstrip("/")


def _database_name(dsn: str) -> str:
    name = urlsplit(dsn).path.strip("/")
    if not dsn.startswith(("postgresql://", "postgres://")) or not name:
        raise ConfigError(f"{dsn.split('@')[-1]!r} is no database: postgresql://user:password@host:port/database")
    return name


def _run(work: Coroutine[Any, Any, None], *, run: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run) -> None:
    try:
        run(work)
    except BackstayError as error:
        _fail(str(error))


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _fail(text: str) -> NoReturn:
    sys.stderr.write(f"backstay: {text}\n")
    raise SystemExit(1)


if __name__ == "__main__":
    main()
