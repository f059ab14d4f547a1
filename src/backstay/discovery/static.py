"""A registry that is written down: for tests, and for places where addresses never change."""

from collections.abc import Mapping, Sequence

from backstay.clock import SYSTEM, Clock
from backstay.discovery.balancer import Balancer
from backstay.discovery.instance import EJECTION, Instance


class StaticRegistry:
    """`StaticRegistry({"payments": ["127.0.0.1:8081", "127.0.0.1:8082"]})`."""

    def __init__(self, apps: Mapping[str, Sequence[Instance | str]], *, clock: Clock = SYSTEM) -> None:
        self._balancer = Balancer(clock)
        self.replace(apps)

    def replace(self, apps: Mapping[str, Sequence[Instance | str]]) -> None:
        """Know these instances and no others."""
        self._balancer.replace({app: [_instance(app, each) for each in found] for app, found in apps.items()})

    def choose(self, app: str) -> Instance:
        """Return the next instance in turn; raises `NoInstance`."""
        return self._balancer.choose(app)

    def instances(self, app: str) -> list[Instance]:
        """All instances of the application."""
        return self._balancer.instances(app)

    def eject(self, instance: Instance, seconds: float = EJECTION) -> None:
        """Leave the instance out of `choose` for a while."""
        self._balancer.eject(instance, seconds)


def _instance(app: str, given: Instance | str) -> Instance:
    if isinstance(given, Instance):
        return given
    host, _, port = given.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"address of {app} must be host:port, not {given!r}")
    return Instance(app.lower(), given, host.strip("[]"), int(port))
