"""`backstay`: the platform's parts from the command line, next to applications that are not ours.

Everything is imported where it is used: a command needs the extras of its own part, and this module needs none.
"""

import os
import sys
from typing import TYPE_CHECKING

from backstay.cli import dead_letters, outbox, servers
from backstay.cli.common import MISUSED, completed, fail, reported

if TYPE_CHECKING:
    import typer


def app() -> "typer.Typer":
    """Return the commands, for typer."""
    import typer

    made = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
    events = typer.Typer(help="The transactional outbox.", no_args_is_help=True)
    letters = typer.Typer(help="Events that could not be handled.", no_args_is_help=True)
    made.command()(outbox.relay)
    made.command()(servers.gateway)
    made.command()(servers.registry)
    events.command("adopt")(outbox.outbox_adopt)
    events.command("status")(outbox.outbox_status)
    events.command("park")(outbox.outbox_park)
    events.command("resume")(outbox.outbox_resume)
    events.command("skip")(outbox.outbox_skip)
    events.command("replay")(outbox.outbox_replay)
    letters.command("list")(dead_letters.list_dead_letters)
    letters.command("replay")(dead_letters.replay_dead_letters)
    letters.command("discard")(dead_letters.discard_dead_letters)
    letters.command("audit")(dead_letters.audit_dead_letters)
    made.add_typer(events, name="outbox")
    made.add_typer(letters, name="dead-letters")
    return made


def main() -> None:
    """The entry point of the command `backstay`."""
    with reported():
        try:
            made = app()
        except ImportError as error:
            fail(f"the command line needs the extra 'cli' (pip install 'backstay[cli]'): {error}", MISUSED)
        made(completed(sys.argv[1:], os.environ))


__all__ = ["app", "main"]
