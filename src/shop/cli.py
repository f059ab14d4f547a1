"""`python -m shop`: one service of the shop in this process; what a container runs."""

import importlib
import os
from typing import Annotated, Any, NoReturn

import typer

from backstay.errors import ConfigError
from backstay.runtime.program import load
from shop import topology

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """Run one service of the shop."""


@app.command()
def run(
    service: Annotated[str, typer.Argument(help="a service")],
    roles: Annotated[str, typer.Option(help="which of api,consumer,relay,jobs")] = ",".join(topology.ROLES),
) -> None:
    """Run one service in the foreground, told by its environment: what a container runs."""
    wanted = [role.strip() for role in roles.split(",") if role.strip()]
    if not wanted or not set(wanted) <= set(topology.ROLES):
        fail(f"--roles {roles!r}: allowed are {', '.join(topology.ROLES)}", 2)
    if offset := os.environ.get("CLOCK_OFFSET"):
        from shop.clock_offset import shift

        shift(float(offset))
    main = main_of(service)
    try:
        load(lambda: main.settings(os.environ), main.build, roles=wanted).run(roles=wanted)
    except ConfigError as error:
        fail(f"{service} can't start:\n{error}", 2)


def main_of(service: str) -> Any:
    """Import a service's `main` module; exit with status 2 where there is none."""
    try:
        topology.service(service)
    except KeyError as error:
        fail(str(error.args[0]), 2)
    return importlib.import_module(f"shop.{service}.main")


def fail(message: str, status: int = 1) -> NoReturn:
    """Print why it does not go on and exit."""
    typer.echo(message, err=True)
    raise typer.Exit(status)
