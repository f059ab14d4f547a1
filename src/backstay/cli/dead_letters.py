"""`backstay dead-letters …`: events that could not be handled."""

from typing import TYPE_CHECKING

from backstay.cli.common import database, run, say
from backstay.errors import ConfigError

if TYPE_CHECKING:
    from backstay.messaging import DeadLetter


def list_dead_letters(dsn: str, group: str = "", type: str = "", replayed: bool = False) -> None:  # noqa: A002
    """List the dead letters in the database DSN: the open ones, or those replayed since."""
    run(_list_dead_letters(dsn, group, type, replayed))


def replay_dead_letters(
    dsn: str,
    id: list[int] | None = None,  # noqa: A002
    group: str = "",
    type: str = "",  # noqa: A002
    all: bool = False,  # noqa: A002
    dry_run: bool = False,
) -> None:
    """Ask the running consumer to handle dead letters again: by --id, --group, --type, or --all."""
    run(_replay_dead_letters(dsn, id, group, type, all, dry_run))


def discard_dead_letters(dsn: str, id: list[int], reason: str = "", actor: str = "") -> None:  # noqa: A002
    """Give up dead letters for a --reason: their effect will never happen, and what waits for them is handled."""
    run(_discard_dead_letters(dsn, id, reason, actor))


def audit_dead_letters(dsn: str, limit: int = 100) -> None:
    """List who replayed or discarded which dead letters, the latest first."""
    run(_audit_dead_letters(dsn, limit))


async def _list_dead_letters(dsn: str, group: str, kind: str, replayed: bool) -> None:
    from backstay.messaging import list_dead_letters as letters

    async with database(dsn) as db:
        found = await letters(db, group=group or None, type=kind or None, replayed=replayed)
    for letter in found:
        say(_line(letter))
    say(f"{len(found)} dead letters")


async def _replay_dead_letters(
    dsn: str, ids: list[int] | None, group: str, kind: str, everything: bool, dry_run: bool
) -> None:
    from backstay.messaging import replay

    if not (ids or group or kind or everything):
        raise ConfigError("nothing chosen: give --id, --group, --type, or --all")
    async with database(dsn) as db:
        found = await replay(db, ids=ids or None, group=group or None, type=kind or None, dry_run=dry_run)
    for letter in found:
        say(_line(letter))
    say(f"{len(found)} dead letters {'would be' if dry_run else 'are'} asked for")


async def _discard_dead_letters(dsn: str, ids: list[int], reason: str, actor: str) -> None:
    from backstay.messaging import discard

    if not reason:
        raise ConfigError("no reason given: the audit records one, add --reason")
    async with database(dsn) as db:
        found = await discard(db, ids, reason=reason, actor=actor or None)
    for letter in found:
        say(_line(letter))
    missing = sorted(set(ids) - {letter.id for letter in found})
    say(f"{len(found)} dead letters are discarded" + (f"; not open: {missing}" if missing else ""))


async def _audit_dead_letters(dsn: str, limit: int) -> None:
    from backstay.messaging import audit

    async with database(dsn) as db:
        found = await audit(db, limit=limit)
    for one in found:
        asked = ", ".join(f"{name}={value}" for name, value in one.filters.items())
        say(f"{one.at:%Y-%m-%dT%H:%M:%SZ}  {one.actor}  {one.action}  {list(one.letters)}  {asked}")
    say(f"{len(found)} decisions")


def _line(letter: "DeadLetter") -> str:
    asked = " (asked for)" if letter.replay_requested_at and not letter.replayed_at else ""
    where = f"{letter.record.topic}/{letter.record.partition}@{letter.record.offset}"
    return f"{letter.id}  {letter.group}  {letter.type or '?'}  {where}  {letter.cause}{asked}"
