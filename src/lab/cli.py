"""`shop`: the whole system on this machine, one service of it, and what to do with a running one."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from backstay.errors import BackstayError, ConfigError
from shop.cli import fail, main_of, run

app = typer.Typer(no_args_is_help=True, add_completion=True, help=__doc__, pretty_exceptions_enable=False)

DOWN_TIMEOUT = 60.0  # seconds that a system has to stop in order
FOLLOW_POLL = 0.3  # seconds between two looks at a log


@app.command()
def up(
    scale: Annotated[
        list[str] | None, typer.Option(envvar="SCALE", help="service=n instances, or all=n; may be repeated")
    ] = None,
    doors: Annotated[
        bool, typer.Option("--doors", envvar="DOORS", help="doors before broker and database, for `shop fault`")
    ] = False,
) -> None:
    """Start everything, place an order, show its way; stays until Ctrl-C. Settings: see the README."""
    from backstay.dev.screen import Screen
    from lab.demo.up import up as start
    from lab.system.instances import read_scale

    screen = Screen()
    try:
        options = replace(_options(), scale=read_scale(scale or ()), doors=doors)
    except ConfigError as error:
        screen.problem(str(error))
        raise typer.Exit(2) from error
    raise typer.Exit(asyncio.run(start(options, screen)))


app.command()(run)


@app.command()
def down() -> None:
    """Stop the system that runs on BACKSTAY_HOME, in order."""
    home, running = _running()
    os.kill(running.supervisor.pid, signal.SIGTERM)
    until = time.monotonic() + DOWN_TIMEOUT
    while running.supervisor.is_alive() or home.is_locked():
        if time.monotonic() > until:
            fail(f"it still runs after {DOWN_TIMEOUT:g} s: pid {running.supervisor.pid}")
        time.sleep(0.1)
    typer.echo("all stopped")


@app.command()
def status() -> None:
    """Show every process, whether it is in the registry, and the addresses."""
    from backstay.dev.screen import Screen
    from lab.system.status import show

    home, running = _running()
    _run(show(home, running, Screen()))


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="a service, postgres or kafka")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on with what comes")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="how many lines from the end")] = 50,
) -> None:
    """Print a process's log (JSON lines)."""
    file = _home().logs / f"{service}.log"
    if not file.exists():
        there = ", ".join(sorted(log.stem for log in file.parent.glob("*.log"))) or "none"
        fail(f"there is no {file}; logs there are: {there}")
    for line in _lines(file, lines, follow):
        typer.echo(line)


@app.command()
def config(
    service: Annotated[str, typer.Argument(help="a service, or one process of it (orders-2)")],
    shell: Annotated[bool, typer.Option("--shell", help="what this shell's environment would set instead")] = False,
) -> None:
    """Show every setting of a service as it runs, secrets masked; as this environment sets it where nothing runs."""
    from lab.system.instances import service_of

    main = main_of(service_of(service))
    running = None if shell else _home().running()
    environ = dict(os.environ) if running is None else _environment_of(service, running)
    typer.echo(f"{service}, as {'this environment sets it' if running is None else 'it runs'}:")
    try:
        typer.echo(repr(main.settings(environ)).replace(", ", ",\n  "))
    except ConfigError as error:
        fail(str(error), 2)


@app.command()
def url(service: Annotated[str, typer.Argument(help="a service with a database")]) -> None:
    """Print the URL of a service's database in the running system, password included."""
    _, running = _running()
    if service not in running.databases:
        fail(f"{service!r} has no database here; these have: {', '.join(sorted(running.databases))}", 2)
    typer.echo(running.databases[service])


@app.command()
def demo() -> None:
    """Place an order on the running system and show its way, and a failure."""
    from backstay.dev.screen import Screen
    from lab.demo.walkthrough import tell_remote

    home, running = _running()
    _run(tell_remote(home, running, Screen()))


@app.command()
def seed() -> None:
    """Load catalog and stock into the running system; what is there already stays."""
    from backstay.dev.screen import Screen
    from lab.system.seed import seed_running

    home, running = _running()
    _run(seed_running(home, running, Screen()))


@app.command()
def audit(
    since: Annotated[str, typer.Option(help="only what was first seen then or later: 30m, 2h, 1d, or a time")] = "",
) -> None:
    """Show what doesn't add up between orders, payments, the provider, stock and mails; status 1 if anything."""
    from backstay.dev.screen import Screen
    from lab.checks.audit import read_since, show

    try:
        first = read_since(since, datetime.now(UTC))
    except ValueError as error:
        fail(str(error), 2)
    home, running = _running()
    sound = _run(show(home, running, Screen(), first))
    raise typer.Exit(0 if sound else 1)


@app.command()
def replay(
    folder: Annotated[Path | None, typer.Argument(help="a folder of CSV files like data/northwind")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=512, help="orders in flight")] = 16,
    stock: Annotated[str, typer.Option(help="enough or as-is")] = "enough",
    against: Annotated[str, typer.Option(help="gateway of a running system instead of a fresh one")] = "",
    chaos: Annotated[bool, typer.Option("--chaos", help="in a storm of accidents, on Apache Kafka")] = False,
    seed: Annotated[int, typer.Option(help="of the storm: the same one brings the same accidents")] = 1,
    kills: Annotated[int, typer.Option(min=0, max=2000, help="accidents: kills, pauses, cuts")] = 60,
    seconds: Annotated[float, typer.Option(min=0, help="how long the storm lasts; 0: 300 s, longer with kills")] = 0,
    scale: Annotated[list[str] | None, typer.Option(help="service=n instances, or all=n; with --chaos")] = None,
) -> None:
    """Place a real shop's orders through the gateway and reconcile every service with the files, to the cent."""
    from backstay.dev.screen import Screen
    from lab.experiments.replay_under_faults import Chaos, replay_in_a_storm
    from lab.replay.command import replay as start
    from lab.system.instances import read_scale

    if stock not in ("enough", "as-is"):
        fail(f"--stock {stock!r}: allowed are enough and as-is", 2)
    screen = Screen()
    try:
        options = replace(_options(), scale=read_scale(scale or ()))
    except ConfigError as error:
        fail(str(error), 2)

    async def storm(history: Any) -> int:
        enough = stock == "enough"
        return await replay_in_a_storm(history, options, screen, enough=enough, chaos=Chaos(seed, kills, seconds))

    work = start(
        folder,
        options,
        screen,
        concurrency=concurrency,
        stock=stock,
        against=against,
        storm=storm if chaos else None,
    )
    raise typer.Exit(asyncio.run(work))


@app.command()
def fault(
    name: Annotated[str, typer.Argument(help="which fault; none: list them")] = "",
    seconds: Annotated[float, typer.Option("--for", help="seconds until it ends by itself")] = 30.0,
    on: Annotated[str, typer.Option(help="a service or one process of it (orders, orders-2), or all")] = "",
    value: Annotated[float | None, typer.Option(help="seconds or percent, see the list")] = None,
) -> None:
    """Inject a fault into the running system, for a while, and print the expected symptom."""
    from backstay.dev.screen import Screen
    from lab.faults.catalog import FAULTS, Order, written

    screen = Screen()
    if not name:
        rows = [(f"  {f.name}", f.what, f.on, f"{f.value:g} {f.unit}" if f.unit else "") for f in FAULTS]
        screen.rows(("  fault", "what happens", "--on", "--value"), rows)
        return
    _, running = _running()
    _run(_order(running, written(Order(fault=name, seconds=seconds, on=on, value=value)), seconds, screen))


@app.command()
def load(
    rate: Annotated[float, typer.Option(min=0, help="requests a second; 0: as fast as they are answered")] = 0.0,
    clients: Annotated[int, typer.Option(min=1, max=1024, help="requests at once, at most")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="how long")] = 30.0,
    orders: Annotated[bool, typer.Option("--orders", help="orders only, instead of browse, order and read")] = False,
    customers: Annotated[int, typer.Option(min=1, max=1000, help="each has its own limit at the gateway")] = 32,
    plot: Annotated[Path | None, typer.Option(help="SVG of the percentiles")] = None,
    report: Annotated[Path | None, typer.Option(help="figures as JSON")] = None,
) -> None:
    """Load the running system: closed loop, or with --rate an open one; print the results."""
    import uvloop

    from backstay.dev.screen import Screen
    from lab.load.command import Plan
    from lab.load.command import load as start

    home, running = _running()
    plan = Plan(rate, clients, seconds, customers, orders, plot or home.path / "load.svg", report)
    try:
        uvloop.run(start(home, running, Screen(), plan))
    except (BackstayError, RuntimeError, OSError) as error:
        fail(str(error))


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(min=0.5, help="how long")] = 30.0,
    seed: Annotated[int, typer.Option(help="of its faults")] = 1,
    rate: Annotated[float, typer.Option(min=1, help="requests a second, a fifth of them orders")] = 40.0,
) -> None:
    """Constant load on a system of its own with a fault every 30 s, on Apache Kafka: nothing may grow."""
    from backstay.dev.screen import Screen
    from lab.experiments.soak import soak as start

    try:
        options = _options()
    except ConfigError as error:
        fail(str(error), 2)
    raise typer.Exit(_run(start(options, Screen(), minutes=minutes, seed_of_storm=seed, rate=rate)))


@app.command()
def healing(
    only: Annotated[list[str] | None, typer.Argument(help="these faults; none: all of them")] = None,
) -> None:
    """Every fault once, under a steady stream of orders on a system of its own: how soon is all well again?"""
    from backstay.dev.screen import Screen
    from lab.experiments.recovery import healing as start

    try:
        options = _options()
    except ConfigError as error:
        fail(str(error), 2)
    raise typer.Exit(_run(start(options, Screen(), only=only or ())))


async def _order(running: Any, order: str, seconds: float, screen: Any) -> None:
    from lab.system.control import tell

    told = await tell(running, "fault", order)
    screen.say(told["what"])
    screen.say(f"you should see: {told['see']}")
    with screen.step("over"):
        await asyncio.sleep(seconds)


def _environment_of(process: str, running: Any) -> dict[str, str]:
    """Return what a running process was started with."""
    from lab.system.control import ControlRefused, tell

    try:
        return dict(asyncio.run(tell(running, "environment", process)))
    except ControlRefused as error:
        fail(str(error), 2)
    except OSError as error:
        fail(f"the system on {_home().path} doesn't answer: {error}")


def _options() -> Any:
    from lab.system.options import Options

    return Options.read(os.environ)


def _home() -> Any:
    from backstay.dev.home import Home
    from lab.system.options import HOME

    return Home(Path(os.environ.get("BACKSTAY_HOME") or HOME))


def _running() -> Any:
    home = _home()
    running = home.running()
    if running is None:
        fail(f"nothing runs on {home.path}: start it with `make up`, or say which with BACKSTAY_HOME=<folder>")
    return home, running


def _run(work: Any) -> Any:
    from backstay.dev.stopping import INTERRUPTED, Stopped

    try:
        return asyncio.run(work)
    except Stopped as stopped:
        raise typer.Exit(INTERRUPTED) from stopped
    except BaseExceptionGroup as group:
        fail("\n".join(map(str, group.exceptions)))
    except (BackstayError, RuntimeError, OSError) as error:
        fail(str(error))


def _lines(file: Path, count: int, follow: bool) -> Iterator[str]:
    with file.open(errors="replace") as log:
        yield from (line.rstrip("\n") for line in log.readlines()[-count:])
        while follow:
            if line := log.readline():
                yield line.rstrip("\n")
            else:
                time.sleep(FOLLOW_POLL)
