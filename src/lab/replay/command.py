"""`shop replay`: a fresh system (or a running one), the orders, the waiting, the comparison, the verdict."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from backstay.dev.home import Home
from backstay.dev.screen import Screen
from backstay.dev.stopping import Stopped, until_stopped
from backstay.dev.waiting import until
from backstay.dev.web import Web
from backstay.errors import BackstayError
from lab.client.retrying import GaveUp
from lab.replay.books import Books, Entries, Figures, figures
from lab.replay.expected import starting_stock
from lab.replay.place import TENTH, Placed, Placing
from lab.replay.reconcile import Case, Check, reconcile
from lab.system import seed
from lab.system.context import Stage, in_process, remote
from lab.system.dataset import NORTHWIND, BadFile, History, read
from lab.system.options import Options
from lab.system.system import System

SETTLE_TIMEOUT = 180.0  # seconds without any progress
SETTLE_POLL = 0.5  # seconds
CATCH_UP_TIMEOUT = 60.0  # seconds for consumers to finish what has been published
CATCH_UP_POLL = 1.0  # seconds
RAISED: dict[str, str] = {}
"""Settings of our own fresh system beyond its defaults: everybody's requests come from one address here."""


async def replay(
    folder: Path | None,
    options: Options,
    screen: Screen,
    *,
    concurrency: int,
    stock: str,
    against: str = "",
    storm: Callable[[History], Awaitable[int]] | None = None,
) -> int:
    """Replay a folder; returns the exit status: 0 when everything adds up, 1 when anything differs."""
    try:
        history = read(folder or NORTHWIND)
        if storm is not None:
            return await storm(history)
        work = Replay(history, screen, concurrency=concurrency, enough=stock == "enough")
        return await (_on_running(work, options, against) if against else _on_fresh(work, options))
    except Stopped:
        return 130
    except (BadFile, GaveUp, BackstayError, RuntimeError, OSError) as error:
        screen.problem(str(error))
        return 1
    except BaseExceptionGroup as group:
        screen.problem("\n".join(str(error) for error in group.exceptions))
        return 1


async def _on_fresh(work: "Replay", options: Options) -> int:
    """Return a system of its own beside whatever runs, emptied at its start and gone at the end."""
    home = options.home / "replay"
    own = replace(options, home=home, gateway_port=0, discovery_port=0, settings=RAISED, fresh=True)
    system = System(own, work.screen)

    async def live() -> int:
        work.screen.title("Replay", f"on a system of its own, home {own.home}")
        for name, value in RAISED.items():
            work.screen.say(f"raised for it: {name}={value}")
        async with system, Web(system.running.gateway, max_connections=work.concurrency) as web:
            return await work.run(in_process(system, web))

    return await until_stopped(live(), at_once=system.kill, tell=work.screen.note)


async def _on_running(work: "Replay", options: Options, against: str) -> int:
    home = Home(options.home)
    running = home.running()
    if running is None or running.gateway != against.rstrip("/"):
        raise RuntimeError(
            f"{home.path} doesn't hold the system of {against}: the books are read with what its home knows, "
            "so set BACKSTAY_HOME to the folder of that system"
        )
    work.screen.title("Replay", f"on {against}, with the limits it has")
    async with Web(running.gateway, max_connections=work.concurrency) as web:
        return await work.run(remote(home, running, work.screen, web))


class Replay:
    """One run over one history."""

    step = TENTH
    """Every so many-th order is sent a second time."""

    def __init__(self, history: History, screen: Screen, *, concurrency: int, enough: bool) -> None:
        self.history, self.screen = history, screen
        self.concurrency, self.enough = concurrency, enough
        self.start = starting_stock(history, enough=enough)
        self.case: Case | None = None
        """What was compared last."""

    async def run(self, stage: Stage) -> int:
        """Seed, place, repeat, wait, compare; returns the exit status."""
        admin = stage.admin()
        await admin.login()
        with self.screen.step(f"catalog and stock: {len(self.history.products)} products, all of them for sale"):
            await seed.load(admin, self.history.products.values(), self.start, sell_all=True, reset=True)
            await seed.copied(stage.running.databases["orders"], self.start)
        before = await figures(admin)
        placing = Placing(stage.web, self.history, secret=stage.home.secret("replay"), concurrency=self.concurrency)
        placed, repeated = await self._place(placing)
        customers = await placing.ids()
        async with Books(stage.running.databases) as books:
            with self.screen.step("everything settles") as step:
                step.text = await self._settle(books)

            async def look() -> Case:
                entries = await _entries(books, stage, placed, customers)
                self.case = self._case(placed, customers, entries, before, await figures(admin))
                return self.case

            with self.screen.step("books of every service, compared with the files"):
                checks = await _agreed(look)
        again = Check("sent a second time", f"{self._again(placed)} orders, same answers", tuple(repeated))
        return self._report([checks[0], again, *checks[1:]], placing)

    async def _place(self, placing: Placing) -> tuple[dict[str, Placed], list[str]]:
        with self._bar("customers registered", len(self.history.customers)) as done:
            await placing.register(done)
        with self._bar("orders placed", len(self.history.orders)) as done:
            placed = await placing.place(done)
        with self.screen.step("a tenth of the orders sent a second time"):
            repeated = await placing.repeat(placed, step=self.step)
        return placed, repeated

    def _again(self, placed: dict[str, Placed]) -> int:
        """Return the number of orders that were sent a second time."""
        return len(range(0, len(placed), self.step))

    async def _settle(self, books: Books) -> str:
        """Wait until nothing is under way; gives up when nothing has moved for a while, and the books will show it."""
        waiting: dict[str, int] = {}

        async def moved() -> bool:
            nonlocal waiting
            last, waiting = waiting, await books.waiting()
            return not waiting or waiting != last

        while await until(moved, timeout=SETTLE_TIMEOUT, poll=SETTLE_POLL):
            if not waiting:
                return "everything has settled"
        return "not settled: " + ", ".join(f"{count} {name}" for name, count in waiting.items())

    def _case(
        self, placed: dict[str, Placed], customers: dict[str, str], entries: Entries, before: Figures, now: Figures
    ) -> Case:
        return Case(
            history=self.history,
            placed=placed,
            customers=customers,
            start=self.start,
            enough=self.enough,
            entries=entries,
            before=before,
            analytics=now,
        )

    def _report(self, checks: list[Check], placing: Placing) -> int:
        differences = [line for check in checks for line in check.differences]
        self.screen.title("The books and the files")
        rows = [("✗" if check.differences else "✓", check.name, check.found) for check in checks]
        self.screen.rows(("", "compared", "found"), [(f"  {mark}", *rest) for mark, *rest in rows])
        self.screen.say("")
        self.screen.say(f"repeated requests: {placing.retries}")
        for line in differences:
            self.screen.plain(f"  ✗ {line}")
        self.screen.say(f"{len(differences):,} differences" if differences else "everything adds up")
        return 1 if differences else 0

    @contextmanager
    def _bar(self, text: str, total: int) -> Iterator[Callable[[], None]]:
        columns = (TextColumn("  … {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        shown = self.screen.console.is_terminal
        bar = Progress(*columns, console=self.screen.console, transient=True, disable=not shown)
        with self.screen.step(f"{total:,} {text}", spinner=False), bar:
            task = bar.add_task(text, total=total)
            yield lambda: bar.advance(task)


async def _entries(books: Books, stage: Stage, placed: dict[str, Placed], customers: dict[str, str]) -> Entries:
    orders = [each.id for each in placed.values() if each.id is not None]
    return await books.entries(orders, list(customers.values()), stage.mail)


async def _agreed(look: Callable[[], Awaitable[Case]]) -> list[Check]:
    """Return the checks, repeated while consumers may still be at work; the last result counts."""
    checks: list[Check] = []

    async def agree() -> bool:
        checks[:] = reconcile(await look())
        return not any(check.differences for check in checks)

    await until(agree, timeout=CATCH_UP_TIMEOUT, poll=CATCH_UP_POLL)
    return checks
