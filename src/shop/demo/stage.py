"""Where a story is told: a running system, and the two ways to touch its processes."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from shop.demo.shopper import Shopper
from shop.local.control import tell
from shop.local.environment import ADMIN_EMAIL
from shop.local.home import Home, Running
from shop.local.screen import Screen
from shop.local.system import System
from shop.local.web import Web

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
        """Where mails can be read; None when they go to a mail server of yours."""
        return Path(self.running.mail) if self.running.mail else None

    def admin(self) -> Shopper:
        """The first admin; its secret lies under the home."""
        return Shopper(self.web, ADMIN_EMAIL, self.home.secret("admin"))

    def customer(self) -> Shopper:
        """A customer of the demo's."""
        return Shopper(self.web, CUSTOMER_EMAIL, self.home.secret("customer"))


def in_process(system: System, web: Web) -> Stage:
    """The stage of a system that this process runs."""
    return Stage(
        running=system.running,
        home=system.home,
        screen=system.screen,
        web=web,
        stop=system.supervisor.stop,
        start=system.supervisor.start,
    )


def remote(home: Home, running: Running, screen: Screen, web: Web) -> Stage:
    """The stage of a system that another process runs."""
    return Stage(
        running=running,
        home=home,
        screen=screen,
        web=web,
        stop=lambda name: tell(running, "stop", name),
        start=lambda name: tell(running, "start", name),
    )
