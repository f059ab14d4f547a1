"""`backstay outbox …`: the outbox of a database, of any writer."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

from backstay.cli.common import (
    MISUSED,
    database,
    fail,
    run,
    say,
)
from backstay.errors import ConfigError

if TYPE_CHECKING:
    from backstay.outbox import OutboxTable

ROUTE = "outbox.event.{}"


def outbox_adopt(dsn: str, table: str, shape: str = "debezium", apply: bool = False) -> None:
    """Print the statements that an outbox TABLE of another product needs before our relay can publish it.

    They lock and rewrite it; --apply executes them.
    """
    run(_outbox_adopt(dsn, table, shape, apply))


def outbox_status(dsn: str, table: str = "", shape: str = "debezium", route: str = ROUTE) -> None:
    """Show what waits in the outbox of the database DSN, and which relays are there."""
    run(_outbox_status(dsn, foreign_table(table, shape, route)))


def outbox_park(dsn: str, topic: str, key: str, reason: str = "parked by an operator") -> None:
    """Publish nothing of KEY of TOPIC until it is resumed; the rest flows on."""
    run(_outbox_park(dsn, topic, key, reason))


def outbox_resume(dsn: str, topic: str, key: str) -> None:
    """Let the parked KEY of TOPIC go on, in its order."""
    run(_outbox_resume(dsn, topic, key))


def outbox_skip(
    dsn: str, topic: str, key: str, event: str = "", table: str = "", shape: str = "debezium", route: str = ROUTE
) -> None:
    """Leave out the first event of a parked KEY (or --event ID) for good, and let the key go on."""
    run(_outbox_skip(dsn, topic, key, event, foreign_table(table, shape, route)))


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
    run(_outbox_replay(dsn, topic, key, payload, event, foreign_table(table, shape, route)))


async def _outbox_adopt(dsn: str, table: str, shape: str, apply: bool) -> None:

    wanted = foreign_table(table, shape, ROUTE)
    assert wanted is not None
    say(wanted.migration + ";")
    if apply:
        async with database(dsn) as db, db.transaction() as tx:
            for statement in wanted.migration.split(";\n"):
                await tx.execute(statement, timeout=3600.0)
        say(f"-- {table} is ready for a relay")


async def _outbox_status(dsn: str, table: "OutboxTable | None") -> None:
    from backstay.outbox.status import read_status

    async with database(dsn) as db:
        status = await read_status(db, table=table)
    say(f"pending      {status.pending}{'+' if status.truncated else ''}")
    say(f"oldest       {status.oldest_age:.1f} s")
    say(f"unowned      {status.unowned} of {status.shards} shards")
    for relay in status.relays:
        say(f"relay        {relay.name} ({relay.id}): {relay.shards} shards")
    for one in status.parked:
        say(f"parked       {one.topic} {one.key!r} since {one.parked_at:%Y-%m-%dT%H:%M:%SZ}: {one.rows} events,")
        say(f"             first {one.head or 'not gathered yet'}: {one.reason}")
    for topic, count in status.topics.items():
        say(f"topic        {topic}: {count} of the first {sum(status.topics.values())}")


async def _outbox_park(dsn: str, topic: str, key: str, reason: str) -> None:
    from backstay.outbox import park

    async with database(dsn) as db:
        fresh = await park(db, topic, key, reason)
    say(f"key {key!r} of topic {topic!r} {'is' if fresh else 'was already'} parked")


async def _outbox_resume(dsn: str, topic: str, key: str) -> None:
    from backstay.outbox import resume

    async with database(dsn) as db:
        count = await resume(db, topic, key)
    say(f"key {key!r} of topic {topic!r} goes on: {count} events")


async def _outbox_skip(dsn: str, topic: str, key: str, event: str, table: "OutboxTable | None") -> None:
    from backstay.outbox import skip

    ident = event_id(event)
    async with database(dsn) as db:
        skipped = await skip(db, topic, key, ident, table=table)
    say(f"event {skipped} is skipped (it stays in outbox_parked); key {key!r} of topic {topic!r} goes on")


async def _outbox_replay(
    dsn: str, topic: str, key: str, payload: Path | None, event: str, table: "OutboxTable | None"
) -> None:
    from backstay.outbox import replay

    ident = event_id(event)
    try:
        text = await asyncio.to_thread(payload.read_text, encoding="utf-8") if payload else None
    except OSError as error:
        raise ConfigError(f"{payload}: {error.strerror}") from error
    async with database(dsn) as db:
        replayed = await replay(db, topic, key, text, ident, table=table)
    say(f"event {replayed} is replayed{' with its new payload' if text else ''}; key {key!r} of {topic!r} goes on")


def foreign_table(name: str, shape: str, route: str) -> "OutboxTable | None":
    """Return the outbox table of another product that is named; None for our own."""
    if not name:
        return None
    from dataclasses import replace

    from backstay.outbox import DEBEZIUM, QUARKUS

    shapes = {"debezium": DEBEZIUM, "quarkus": QUARKUS}
    if shape not in shapes:
        fail(f"--shape {shape!r}: must be debezium or quarkus", MISUSED)
    try:
        return replace(shapes[shape], table=name, route=route)
    except ConfigError as error:
        fail(str(error), MISUSED)


def event_id(text: str) -> UUID | None:
    """Return the id that `--event` names, if any."""
    try:
        return UUID(text) if text else None
    except ValueError:
        raise ConfigError(f"--event {text!r}: is no UUID") from None
