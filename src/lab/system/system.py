"""One whole system: entering brings it up, ready to take orders; leaving takes all of it down, whatever happened.

Order up: home, ports, database and broker and mail, discovery, everybody else at once, the registry shows all ready.
Order down: the gateway, orders, the others, discovery, broker, database.
"""

import os
import secrets
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from backstay.dev import processes, registry
from backstay.dev.home import Home, Recorded, Running
from backstay.dev.mail_catcher import Mailbox
from backstay.dev.ports import HOST, choose, free_port
from backstay.dev.processes import owners_of, started_at
from backstay.dev.program import Program
from backstay.dev.screen import Screen
from backstay.dev.supervisor import NotReady, Supervisor
from backstay.dev.tcp_proxy import TcpProxy
from backstay.dev.web import Web
from lab.system import infrastructure
from lab.system.control import Answering, Control
from lab.system.environment import Resources, environment, python_path
from lab.system.instances import Instance, expanded, instances
from lab.system.options import EMBEDDED, Options
from shop import topology

READY_TIMEOUT = 60.0  # seconds until the registry must show everybody
KILL_TIMEOUT = 3.0  # seconds that killed processes have to be gone


class System:
    """A running system on a home. Enter it once."""

    def __init__(
        self,
        options: Options,
        screen: Screen | None = None,
        *,
        services: tuple[topology.Service, ...] = topology.SERVICES,
    ) -> None:
        self.options = options
        self.services = services
        self.instances = instances(services, options.scale)
        self.screen = screen or Screen()
        self.home = Home(options.home)
        self.supervisor = Supervisor(self.home, self.screen.note, longest_delay=options.restart_delay)
        self.started = time.monotonic()
        self._control = Control(self.supervisor, secrets.token_urlsafe(18))
        self._mailbox: Mailbox | None = None
        self._open = AsyncExitStack()
        self._doors: dict[str, TcpProxy] = {}
        self._ports: dict[str, int] = {}
        self._resources: Resources | None = None
        self._databases: Mapping[str, str] = {}
        self._running: Running | None = None

    @property
    def running(self) -> Running:
        """The addresses of the system, once it is up."""
        if self._running is None:
            raise RuntimeError("the system isn't up")
        return self._running

    def door(self, name: str) -> TcpProxy:
        """Return the door before `kafka` or `postgres`; RuntimeError if the system has none."""
        if name not in self._doors:
            raise RuntimeError(f"there is no door before {name}: start the system with --doors")
        return self._doors[name]

    def teach(self, verb: str, answering: Answering) -> None:
        """Add a verb that other commands may send to this system."""
        self._control.teach(verb, answering)

    def memory(self) -> int | None:
        """Return the bytes of all processes, this one included, shared pages counted once; None if unknown."""
        return processes.memory([os.getpid(), *self.supervisor.pids()])

    async def __aenter__(self) -> Self:
        self.home.lock()
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    def kill(self) -> None:
        """End everything at once: for a second Ctrl-C."""
        self.supervisor.kill_all()
        until = time.monotonic() + KILL_TIMEOUT
        while any(child.is_alive() for child in self.home.recorded()) and time.monotonic() < until:
            time.sleep(0.02)
        self.home.withdraw()

    async def _start(self) -> None:
        if left := self.home.end_leftovers():
            self.screen.note(f"ended what an earlier run left: {', '.join(left)}")
        self._ports = self._choose_ports()
        self.home.logs.mkdir(exist_ok=True)
        for log in self.home.logs.glob("*.log"):
            log.unlink()
        if not self.options.smtp_url:
            self._mailbox = await Mailbox(self.home.mail).__aenter__()
        self._resources = await infrastructure.start(
            await self._with_broker_door(), self.home, self.supervisor, self.screen, self._mailbox
        )
        await self._open_database_door()
        with self.screen.step(self._described()):
            await self._start_services()
        await self._publish()
        self.supervisor.settle()

    def _choose_ports(self) -> dict[str, int]:
        wanted = {"gateway": self.options.gateway_port, "discovery": self.options.discovery_port}
        ports = {
            service.name: choose(wanted[service.name], variable=service.port, what=service.name)
            for service in (topology.GATEWAY, topology.DISCOVERY)
            if service.port
        }
        more = (instance for instance in self.instances if instance.service.port and instance.number > 1)
        issuers = (instance.name for instance in self.instances if instance.service is topology.AUTH)
        return (
            ports | {instance.name: free_port() for instance in more} | {name: self.home.port(name) for name in issuers}
        )

    async def _with_broker_door(self) -> Options:
        """Return the options with a door before the broker, if there are to be doors and the broker is ours."""
        if not self.options.doors or not self.options.kafka_is_ours:
            return self.options
        inside, outside = free_port(), free_port()
        await self._open_door("kafka", outside, inside)
        return replace(self.options, kafka_proxy=(inside, outside))

    async def _open_database_door(self) -> None:
        """Services reach a database of ours through its door; our own commands go past it."""
        assert self._resources is not None
        self._databases = self._resources.databases
        if not self.options.doors or self.options.database_url:
            return
        outside = free_port()
        inside = next(filter(None, (urlsplit(url).port for url in self._databases.values())))
        await self._open_door("postgres", outside, inside)
        doored = {name: url.replace(f":{inside}/", f":{outside}/") for name, url in self._databases.items()}
        self._resources = replace(self._resources, databases=doored)

    async def _open_door(self, name: str, port: int, target: int) -> None:
        door = TcpProxy(port, target, owners=lambda clients: owners_of(clients, self.supervisor.pids_by_name()))
        self._doors[name] = await self._open.enter_async_context(door)

    def _described(self) -> str:
        more = len(self.instances) - len(self.services)
        return (
            f"{len(self.services)} services{f' and {more} more instances' if more else ''}, ready and in the registry"
        )

    async def _start_services(self) -> None:
        for instance in self.instances:
            await self.supervisor.add(self._program(instance))
        names = tuple(each.service.name for each in self.instances if each.service is not topology.DISCOVERY)
        async with Web(f"http://{HOST}:{self._ports['discovery']}") as discovery:
            await self._wait_for(discovery, names)

    async def _wait_for(self, discovery: Web, names: tuple[str, ...]) -> None:
        async def all_up() -> bool:
            return not await registry.missing(discovery, names)

        try:
            await self.supervisor.ready("discovery", all_up, timeout=READY_TIMEOUT)
        except NotReady as error:
            absent = await registry.missing(discovery, names)
            raise NotReady(
                f"after {READY_TIMEOUT:g} s the registry doesn't show: {', '.join(absent) or 'discovery itself'}. "
                f"Their logs are in {self.home.logs}"
            ) from error

    def _program(self, instance: Instance) -> Program:
        assert self._resources is not None
        return Program(
            name=instance.name,
            argv=(sys.executable, "-m", "shop", "run", instance.service.name),
            log=self.home.logs / f"{instance.name}.log",
            env=environment(
                instance.service,
                home=self.home,
                options=self.options,
                resources=self._resources,
                ports=self._ports,
                process=instance.name,
            ),
            cwd=python_path(),
        )

    async def _publish(self) -> None:
        assert self._resources is not None
        self._running = Running(
            supervisor=Recorded("supervisor", os.getpid(), started_at(os.getpid())),
            gateway=f"http://{HOST}:{self._ports['gateway']}",
            discovery=f"http://{HOST}:{self._ports['discovery']}",
            kafka=self._resources.bootstrap,
            kafka_flavor=self._resources.flavor,
            kafka_settings=dict(self.options.kafka_settings),
            control=await self._control.start(),
            control_token=self._control.token,
            databases=dict(self._databases),
            mail=str(self.home.mail) if self._mailbox else "",
            gateways=[
                f"http://{HOST}:{self._ports[instance.name]}"
                for instance in self.instances
                if instance.service is topology.GATEWAY
            ],
        )
        self.home.publish(self._running)

    async def _stop(self) -> None:
        """Control, services in order, broker and database, mail, records, lock; goes on when one step fails."""
        self._control.close()
        self.home.withdraw()
        try:
            await self.supervisor.close(expanded(topology.STOP_ORDER, (each.name for each in self.instances)))
        finally:
            await self._open.aclose()
            if self._mailbox is not None:
                await self._mailbox.__aexit__(None, None, None)
            if self.options.kafka == EMBEDDED:
                infrastructure.tidy(self.home)
            self.home.unlock()
