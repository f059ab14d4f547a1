"""A running system as the demo sees it, and the two ways to control its processes."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from backstay.dev.home import Home, Running
from backstay.dev.screen import Screen
from backstay.dev.web import Web
from lab.client.user import Shopper
from lab.system.control import tell
from lab.system.environment import ADMIN_EMAIL
from lab.system.instances import service_of
from lab.system.system import System

CUSTOMER_EMAIL = "ada@shop.example"
CUSTOMER_NAME = "Ada"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A running system as its visitors meet it."""

    running: Running
    home: Home
    screen: Screen
    web: Web
    stop: Callable[[str], Awaitable[object]]
    start: Callable[[str], Awaitable[object]]

    @property
    def mail(self) -> Path | None:
        """The folder of the mails; None when they go to an external mail server."""
        return Path(self.running.mail) if self.running.mail else None

    def admin(self) -> Shopper:
        """Return the first admin; its secret lies under the home."""
        return Shopper(self.web, ADMIN_EMAIL, self.home.secret("admin"))

    def customer(self) -> Shopper:
        """Return a customer of the demo's."""
        return Shopper(self.web, CUSTOMER_EMAIL, self.home.secret("customer"))


def in_process(system: System, web: Web) -> Stage:
    """Return the stage of a system that this process runs."""
    supervisor = system.supervisor
    return Stage(
        running=system.running,
        home=system.home,
        screen=system.screen,
        web=web,
        stop=lambda name: _each(supervisor.stop, name, supervisor.names()),
        start=lambda name: _each(supervisor.start, name, supervisor.names()),
    )


def remote(home: Home, running: Running, screen: Screen, web: Web) -> Stage:
    """Return the stage of a system that another process runs."""

    async def every(verb: str, name: str) -> None:
        names = [child["name"] for child in await tell(running, "status")]
        await _each(lambda process: tell(running, verb, process), name, names)

    return Stage(
        running=running,
        home=home,
        screen=screen,
        web=web,
        stop=lambda name: every("stop", name),
        start=lambda name: every("start", name),
    )


async def _each(deed: Callable[[str], Awaitable[object]], service: str, processes: Iterable[str]) -> None:
    """The same to every process of a service."""
    await asyncio.gather(*(deed(process) for process in processes if service_of(process) == service))
