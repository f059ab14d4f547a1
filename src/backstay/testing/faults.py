"""Arming fault points, in this process or, through a file, in running ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from backstay import faults


@contextmanager
def armed(text: str) -> Iterator[faults.Plan]:
    """Arm the entries of `text` (as in `FAULTS`) in this process for the length of the block."""
    plan = faults.Plan(text)
    before = faults.install(plan)
    try:
        yield plan
    finally:
        faults.install(before)


class FaultFile:
    """The file that processes started with `FAULTS_FILE=<path>` watch."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spent_path = path.with_name(path.name + ".spent")

    def arm(self, *entries: str) -> None:
        """Replace what is armed by `entries`, each with all its firings left."""
        faults.parse("\n".join(entries))
        self.spent_path.unlink(missing_ok=True)
        draft = self.path.with_name(self.path.name + ".new")
        draft.write_text("".join(f"{entry}\n" for entry in entries))
        draft.replace(self.path)

    def disarm(self) -> None:
        """Arm nothing; points that hang go on."""
        self.arm()

    def spent(self) -> list[str]:
        """Each limited entry that has fired, once per firing, in order."""
        return self.spent_path.read_text().splitlines() if self.spent_path.exists() else []
