"""The choice of an instance: in turn over those that are up, take plain HTTP, and were not ejected a moment ago."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from backstay.clock import SYSTEM, Clock
from backstay.discovery.errors import NoInstance, Unreachable
from backstay.discovery.instance import EJECTION, UP, Instance


@dataclass(frozen=True, slots=True)
class Table:
    """A list of instances sorted for choosing; may be made in another thread."""

    all: dict[str, list[Instance]]
    up: dict[str, list[Instance]]
    """Those that are up and take plain HTTP."""
    obstacles: dict[str, str | None]
    """Why none of an application's instances that are up may be spoken to."""

    @classmethod
    def of(cls, apps: Mapping[str, Sequence[Instance]]) -> Self:
        """Return the table of these instances."""
        everyone = {app.lower(): sorted(found, key=lambda each: each.id) for app, found in apps.items()}
        up = {app: [each for each in found if each.status == UP] for app, found in everyone.items()}
        plain = {app: [each for each in found if each.obstacle is None] for app, found in up.items()}
        return cls(everyone, plain, {app: found[0].obstacle for app, found in up.items() if found and not plain[app]})


class Balancer:
    """The known instances by application; `replace` swaps the whole list at once."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._table = Table({}, {}, {})
        self._ejected: dict[Instance, float] = {}
        self._turns: dict[str, itertools.count[int]] = {}

    def replace(self, apps: Mapping[str, Sequence[Instance]]) -> None:
        """Know these instances and no others; ejections of instances that stay are kept."""
        self.install(Table.of(apps))

    def install(self, table: Table) -> None:
        """The same, of a table that was made already."""
        self._table = table
        self._turns = {app: self._turns.get(app) or itertools.count() for app in table.all}
        now = self._clock.monotonic()
        self._ejected = {instance: until for instance, until in self._ejected.items() if until > now}

    def choose(self, app: str) -> Instance:
        """Return the next instance that is up; raises `NoInstance`, or `Unreachable` if all of them take TLS only.

        If all of them are ejected they take turns nevertheless: the registry says that they are there, and trying one
        costs less than refusing everything until an ejection is over.
        """
        name = app.lower()
        up = self._table.up.get(name)
        if not up:
            if (obstacle := self._table.obstacles.get(name)) is not None:
                raise Unreachable(app, obstacle)
            raise NoInstance(app)
        if self._ejected:
            now = self._clock.monotonic()
            up = [each for each in up if self._ejected.get(each, 0.0) <= now] or up
        return up[next(self._turns[name]) % len(up)]

    def instances(self, app: str) -> list[Instance]:
        """All known instances, in any state, in the order of their ids."""
        return list(self._table.all.get(app.lower(), ()))

    def eject(self, instance: Instance, seconds: float = EJECTION) -> None:
        """Leave the instance out of `choose` for so many seconds."""
        self._ejected[instance] = self._clock.monotonic() + seconds

    @property
    def ejected(self) -> int:
        """The number of ejected instances."""
        now = self._clock.monotonic()
        return sum(until > now for until in self._ejected.values())

    @property
    def apps(self) -> dict[str, int]:
        """Return the number of instances that are up and take plain HTTP, by application."""
        return {app: len(up) for app, up in self._table.up.items()}
