"""`backstay`: the platform's parts from the command line, next to applications that are not ours.

Everything is imported where it is used: a command needs the extras of its own part, and this module needs none.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from backstay.cli import dead_letters, new, outbox, servers
from backstay.cli.common import MISUSED, check_database, completed, fail, reported
from backstay.cli.options import SettingsOptions

if TYPE_CHECKING:
    import typer

SERVERS: dict[str, tuple[Callable[..., None], Callable[[], SettingsOptions]]] = {
    "relay": (servers.relay, servers.relay_options),
    "gateway": (servers.gateway, servers.gateway_options),
    "registry": (servers.registry, servers.registry_options),
}
"""Commands whose options are the settings of a process."""


def app(words: Sequence[str] | None = None) -> "typer.Typer":
    """Return the commands, for typer; with the words of the command line, options only of the command they name."""
    import typer

    made = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False)
    for name, (function, options) in SERVERS.items():
        is_wanted = words is None or name in words[:1]
        made.command(name)(options().added_to(function) if is_wanted else _summary(function))
    made.command("new")(new.new)
    made.add_typer(_outbox(), name="outbox")
    made.add_typer(_dead_letters(), name="dead-letters")
    return made


def _outbox() -> "typer.Typer":
    import typer

    made = typer.Typer(help="The transactional outbox.", no_args_is_help=True)
    made.command("adopt")(outbox.outbox_adopt)
    made.command("status")(outbox.outbox_status)
    made.command("park")(outbox.outbox_park)
    made.command("resume")(outbox.outbox_resume)
    made.command("skip")(outbox.outbox_skip)
    made.command("replay")(outbox.outbox_replay)
    return made


def _dead_letters() -> "typer.Typer":
    import typer

    made = typer.Typer(help="Events that could not be handled.", no_args_is_help=True)
    made.command("list")(dead_letters.list_dead_letters)
    made.command("replay")(dead_letters.replay_dead_letters)
    made.command("discard")(dead_letters.discard_dead_letters)
    made.command("audit")(dead_letters.audit_dead_letters)
    return made


def _summary(function: Callable[..., None]) -> Callable[[], None]:
    """Return a command without options, for the list of commands: its extra may not be installed."""

    def command() -> None: ...

    command.__doc__ = function.__doc__
    return command


def main() -> None:
    """The entry point of the command `backstay`."""
    with reported():
        try:
            import typer  # noqa: F401
        except ImportError as error:
            fail(f"the command line needs the extra 'cli' (pip install 'backstay[cli]'): {error}", MISUSED)
        words = completed(sys.argv[1:], os.environ)
        check_database(words, os.environ)
        app(words)(words)


__all__ = ["app", "main"]
