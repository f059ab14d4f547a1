"""A storm's schedule: which accident befalls whom, when, for how long. Pure: the same seed gives the same storm."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

FIRST, LAST = 0.03, 0.97
"""Accidents happen within this part of the run, so that all fall among live orders."""
TICK = 0.01  # seconds to which times are rounded


class Kind(StrEnum):
    """Kinds of faults. A proxy's targets are `process` or `process,process`; `all` means every process."""

    KILL = "kill"  # SIGKILL to a service, started again
    PAUSE = "pause"  # SIGSTOP, then SIGCONT
    CUT_BROKER = "cut broker"  # connections reset, at once allowed again
    SHUT_BROKER = "shut broker"  # no connection for a while
    HOLD_BROKER = "hold broker"  # connections stay and carry nothing
    CUT_DATABASE = "cut database"
    SHUT_DATABASE = "shut database"
    STOP_POSTGRES = "stop postgres"  # immediate mode: every session dies, recovery at the next start
    KILL_BROKER = "kill broker"  # SIGKILL to Kafka, started again
    RESTART_BROKER = "restart broker"  # SIGTERM to Kafka, started again


@dataclass(frozen=True, slots=True)
class Accident:
    """`at` seconds after the start, for `lasts` seconds (0: it is over at once)."""

    number: int
    at: float
    kind: Kind
    target: str
    lasts: float

    def __str__(self) -> str:
        lasts = f" for {self.lasts:g} s" if self.lasts else ""
        return f"{self.number:>3} at {self.at:6.2f} s: {self.kind} {self.target}{lasts}"


@dataclass(frozen=True, slots=True)
class Targets:
    """The processes of a system. `broker` and `database` are those that use them."""

    services: Sequence[str]
    broker: Sequence[str]
    database: Sequence[str]


WEIGHTS = {
    Kind.KILL: 40,
    Kind.PAUSE: 20,
    Kind.CUT_BROKER: 10,
    Kind.SHUT_BROKER: 5,
    Kind.HOLD_BROKER: 3,
    Kind.CUT_DATABASE: 12,
    Kind.SHUT_DATABASE: 4,
    Kind.STOP_POSTGRES: 3,
    Kind.KILL_BROKER: 2,
    Kind.RESTART_BROKER: 1,
}
"""How often each kind comes up among the others."""
AT_LEAST_ONCE = (Kind.STOP_POSTGRES, Kind.KILL_BROKER, Kind.RESTART_BROKER, Kind.SHUT_BROKER, Kind.CUT_DATABASE)
"""A storm long enough has each of these."""


def schedule(seed: int, count: int, duration: float, targets: Targets) -> list[Accident]:
    """`count` accidents over `duration` seconds, in the order of their times."""
    chance = random.Random(seed)  # noqa: S311 - a storm, not a secret
    certain = list(AT_LEAST_ONCE) if count >= 2 * len(AT_LEAST_ONCE) else []
    kinds = certain + chance.choices(list(WEIGHTS), list(WEIGHTS.values()), k=count - len(certain))
    chance.shuffle(kinds)
    slot = duration * (LAST - FIRST) / max(count, 1)
    return [
        _accident(chance, number, duration * FIRST + slot * (number - 1 + chance.random()), kind, targets)
        for number, kind in enumerate(kinds, 1)
    ]


def _accident(chance: random.Random, number: int, at: float, kind: Kind, targets: Targets) -> Accident:
    return Accident(
        number, round(at / TICK) * TICK, kind, _target(chance, kind, targets), round(_lasts(chance, kind), 1)
    )


def _target(chance: random.Random, kind: Kind, targets: Targets) -> str:
    match kind:
        case Kind.KILL | Kind.PAUSE:
            return chance.choice(targets.services)
        case Kind.CUT_BROKER | Kind.SHUT_BROKER | Kind.HOLD_BROKER:
            return chance.choice([*targets.broker, "all", "all"])
        case Kind.CUT_DATABASE | Kind.SHUT_DATABASE:
            return chance.choice([*targets.database, "all"])
        case Kind.STOP_POSTGRES:
            return "postgres"
        case Kind.KILL_BROKER | Kind.RESTART_BROKER:
            return "kafka"


def _lasts(chance: random.Random, kind: Kind) -> float:
    """Mostly short; now and then longer than a lease, a session or a time-out."""
    match kind:
        case Kind.PAUSE | Kind.HOLD_BROKER:
            return chance.uniform(9, 14) if chance.random() < 0.2 else chance.uniform(0.5, 4)
        case Kind.SHUT_BROKER | Kind.SHUT_DATABASE:
            return chance.uniform(1, 6)
        case _:
            return 0.0
