"""The terminal: one line per step, a spinner while it runs, problems in plain words."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

WIDTH = 62  # columns before the time of a step
FILE_WIDTH = 120  # columns where there is no terminal


@dataclass(slots=True)
class Step:
    """A step that runs: its line may be refined until it is printed."""

    text: str
    took: float = 0.0


class Screen:
    """The terminal, or a plain file when there is none."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or _console()

    @property
    def console(self) -> Console:
        """The terminal itself, for progress bars."""
        return self._console

    def title(self, text: str, under: str = "") -> None:
        """The head of a chapter."""
        self._console.print()
        self._console.print(Text(text, style="bold"), Text(f"  {under}", style="dim"))
        self._console.print()

    @contextlib.contextmanager
    def step(self, text: str, *, spinner: bool = True) -> Iterator[Step]:
        """A step with its time; the line is printed when it has succeeded."""
        step, started = Step(text), time.perf_counter()
        turning = spinner and self._console.is_terminal
        with self._console.status(Text(text)) if turning else contextlib.nullcontext():
            yield step
        step.took = time.perf_counter() - started
        self._done(step)

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(Text(f"  {text}"))

    def note(self, text: str) -> None:
        """Something that happened on its own."""
        self._console.print(Text(f"  · {text}", style="yellow"), soft_wrap=True)

    def plain(self, text: str) -> None:
        """Lines as they are: to copy, or to read by a machine."""
        self._console.print(Text(text), soft_wrap=True)

    def problem(self, text: str) -> None:
        """Why it does not go on."""
        self._console.print()
        self._console.print(Panel(Text(text), title="Not possible", title_align="left", border_style="red"))

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
        """A small table without frames; columns numbered in `right` are aligned to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 2), header_style="dim")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        self._console.print(table, crop=False)

    def _done(self, step: Step) -> None:
        line = Text("  ✓ ", style="green")
        line.append(f"{step.text:<{WIDTH}}", style="default")
        line.append(f"{step.took:6.1f} s", style="dim")
        self._console.print(line)


def _console() -> Console:
    return Console(highlight=False, width=None if sys.stdout.isatty() else FILE_WIDTH)
