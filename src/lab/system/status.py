"""`shop status`: what runs, since when, how often it had to be started again, and whether it can be found."""

import os

from backstay.dev import registry
from backstay.dev.home import Home, Running
from backstay.dev.processes import memory, owners_of
from backstay.dev.screen import Screen
from backstay.dev.supervisor import ChildStatus
from backstay.dev.web import Web
from lab.system.control import tell


async def show(home: Home, running: Running, screen: Screen) -> None:
    """Print one row per process and the addresses."""
    children = [ChildStatus(**entry) for entry in await tell(running, "status")]
    async with Web(running.discovery) as discovery:
        shown = _by_process(children, await registry.instances(discovery))
    rows = [_row(child, shown.get(child.name)) for child in children]
    screen.title("Backstay", f"home {home.path}")
    screen.rows(("  process", "pid", "up", "restarts", "registry", "address"), rows, right=(1, 2, 3))
    screen.say("")
    gateways = ", ".join(running.gateways or [running.gateway])
    screen.say(f"gateway {gateways}   registry {running.discovery}   Kafka {running.kafka}")
    pids = [running.supervisor.pid, *(child.pid for child in children if child.pid)]
    if (size := memory({*pids} - {os.getpid()})) is not None:
        screen.say(f"memory of all processes {size / (1 << 20):,.0f} MB")


def _by_process(children: list[ChildStatus], found: list[registry.Instance]) -> dict[str, registry.Instance]:
    """Match entries with processes: by the kernel's owner of the port, else a service's only entry is its own."""
    pids = {child.name: child.pid for child in children if child.pid}
    shown: dict[str, registry.Instance] = {}
    ports = {int(instance.address.rpartition(":")[2]): instance for instance in found}
    owners = owners_of(ports, pids)
    for port, instance in ports.items():
        shown[owners.get(port, instance.app)] = instance
    return shown


def _row(child: ChildStatus, instance: registry.Instance | None) -> tuple[str, ...]:
    life = f"{child.uptime:,.0f} s" if child.pid else "stopped" if not child.wanted else "starting"
    found, address = (instance.status, instance.address) if instance else ("", "")
    return (f"  {child.name}", str(child.pid or ""), life, str(child.restarts), found, address)
