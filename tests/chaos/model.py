"""What the chaos is about: aggregates that count versions, an event for each version, and effects of those events."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backstay.db import Database
from backstay.messaging import Event, KafkaBroker
from backstay.testing.history import Recorder

TOPIC = "moves"
PARTITIONS = 6
AGGREGATES = tuple(f"a{number:03}" for number in range(150))
GROUP = "movers"


class Moved(Event, topic=TOPIC, type="move.made", key="aggregate"):
    """An aggregate has a new version; `written_at`: nanoseconds of the monotonic clock."""

    aggregate: str
    version: int
    written_at: int
    padding: str


@dataclass(frozen=True)
class Role:
    """A process of the chaos, as its environment describes it."""

    name: str
    folder: Path
    dsn: str
    bootstrap: str
    seed: int
    mutant: str
    options: dict[str, str]

    @classmethod
    def read(cls) -> "Role":
        own = {name.removeprefix("CHAOS_"): value for name, value in os.environ.items() if name.startswith("CHAOS_")}
        fixed = {name: own.pop(name) for name in ("NAME", "FOLDER", "DSN", "BOOTSTRAP", "SEED", "MUTANT")}
        return cls(
            fixed["NAME"],
            Path(fixed["FOLDER"]),
            fixed["DSN"],
            fixed["BOOTSTRAP"],
            int(fixed["SEED"]),
            fixed["MUTANT"],
            own,
        )

    def recorder(self) -> Recorder:
        """The history of this very process."""
        return Recorder(self.folder / "history" / f"{self.name}-{os.getpid()}-{time.monotonic_ns()}")

    def database(self, **options: Any) -> Database:
        """The database this role works on."""
        migrations = Path(__file__).parent / ("effects" if self.name.startswith("consumer") else "aggregates")
        return Database(migrations.name, dsn=self.dsn, migrations=migrations, startup_timeout=60.0, **options)

    def broker(self) -> KafkaBroker:
        return KafkaBroker(self.bootstrap, client_id=self.name)
