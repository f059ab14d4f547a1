"""The choice of an instance: in turn over those that are up, take plain HTTP, and were not ejected a moment ago."""

import itertools
from collections.abc import Mapping, Sequence

from backstay.clock import SYSTEM, Clock
from backstay.discovery.errors import NoInstance, Unreachable
from backstay.discovery.instance import EJECTION, UP, Instance


class Balancer:
    """The known instances by application; `replace` swaps the whole list at once."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._all: dict[str, list[Instance]] = {}
        self._up: dict[str, list[Instance]] = {}
        self._obstacles: dict[str, str | None] = {}
        self._ejected: dict[Instance, float] = {}
        self._turns: dict[str, itertools.count[int]] = {}

    def replace(self, apps: Mapping[str, Sequence[Instance]]) -> None:
        """Know these instances and no others; ejections of instances that stay are kept."""
        self._all = {app.lower(): sorted(found, key=lambda each: each.id) for app, found in apps.items()}
        up = {app: [each for each in found if each.status == UP] for app, found in self._all.items()}
        self._up = {app: [each for each in found if each.obstacle is None] for app, found in up.items()}
        self._obstacles = {app: found[0].obstacle for app, found in up.items() if found and not self._up[app]}
        self._turns = {app: self._turns.get(app) or itertools.count() for app in self._all}
        now = self._clock.monotonic()
        self._ejected = {instance: until for instance, until in self._ejected.items() if until > now}

    def choose(self, app: str) -> Instance:
        """The next instance that is up; raises `NoInstance`, or `Unreachable` if those that are up take TLS only.

        If all of them are ejected they take turns nevertheless: the registry says that they are there, and trying one
        costs less than refusing everything until an ejection is over.
        """
        name = app.lower()
        up = self._up.get(name)
        if not up:
            if (obstacle := self._obstacles.get(name)) is not None:
                raise Unreachable(app, obstacle)
            raise NoInstance(app)
        if self._ejected:
            now = self._clock.monotonic()
            up = [each for each in up if self._ejected.get(each, 0.0) <= now] or up
        return up[next(self._turns[name]) % len(up)]

    def instances(self, app: str) -> list[Instance]:
        """All known instances, in any state, in the order of their ids."""
        return list(self._all.get(app.lower(), ()))

    def eject(self, instance: Instance, seconds: float = EJECTION) -> None:
        """Leave the instance out of `choose` for so many seconds."""
        self._ejected[instance] = self._clock.monotonic() + seconds

    @property
    def ejected(self) -> int:
        """How many are left out right now."""
        now = self._clock.monotonic()
        return sum(until > now for until in self._ejected.values())

    @property
    def apps(self) -> dict[str, int]:
        """How many instances are up and take plain HTTP, by application."""
        return {app: len(up) for app, up in self._up.items()}
