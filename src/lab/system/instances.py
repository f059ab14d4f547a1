"""Numbers and names of the instances of each service: orders, orders-2, …"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from backstay.errors import ConfigError
from shop import topology
from shop.topology import Service

MOST = 8
"""Instances of one service on one machine."""
EVERYBODY = "all"


@dataclass(frozen=True, slots=True)
class Instance:
    """One process of a service; the first bears the service's own name."""

    service: Service
    number: int

    @property
    def name(self) -> str:
        """The name in the supervisor, the logs and the fault files."""
        return self.service.name if self.number == 1 else f"{self.service.name}-{self.number}"


def instances(services: Iterable[Service], scale: Mapping[str, int]) -> tuple[Instance, ...]:
    """Every process to start, the first of each service before the second of any."""
    counted = [(service, scale.get(service.name, 1)) for service in services]
    most = max((count for _, count in counted), default=0)
    return tuple(
        Instance(service, number) for number in range(1, most + 1) for service, count in counted if number <= count
    )


def service_of(process: str) -> str:
    """Return the service that a process belongs to."""
    name, _, number = process.rpartition("-")
    return name if name and number.isdigit() else process


def expanded(groups: Iterable[Iterable[str]], processes: Iterable[str]) -> list[list[str]]:
    """Groups of services as groups of their processes."""
    there = list(processes)
    return [[process for process in there if service_of(process) in set(group)] for group in groups]


def read_scale(texts: Iterable[str]) -> dict[str, int]:
    """`orders=2`, or `all=2` for every service but discovery; ConfigError lists what is wrong."""
    scale: dict[str, int] = {}
    problems = []
    for text in texts:
        name, _, count = text.partition("=")
        if not count.isdigit() or not 1 <= int(count) <= MOST:
            problems.append(f"--scale {text!r}: must be service=n with n from 1 to {MOST}")
        elif name == EVERYBODY:
            scale |= {service.name: int(count) for service in topology.SERVICES if _scales(service)}
        elif name not in {service.name for service in topology.SERVICES if _scales(service)}:
            known = ", ".join(service.name for service in topology.SERVICES if _scales(service))
            problems.append(f"--scale {text!r}: {name!r} doesn't scale here; these do: {known}, or all")
        else:
            scale[name] = int(count)
    if problems:
        raise ConfigError(problems)
    return scale


def _scales(service: Service) -> bool:
    """The registry of a machine is one; the others know its address."""
    return service is not topology.DISCOVERY
