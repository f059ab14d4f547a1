"""The whole story, in its order: fill the shop, one order's way, the failure, the farewell."""

import time

from backstay.dev.home import Home, Running
from backstay.dev.screen import Screen
from backstay.dev.web import Web
from lab.demo import outage, summary, timeline
from lab.system import seed
from lab.system.context import CUSTOMER_NAME, Stage, in_process, remote
from lab.system.system import System

MEGABYTE = 1 << 20


async def tell(system: System) -> None:
    """Show an order's way through the running system, and an outage."""
    async with Web(system.running.gateway) as web:
        stage = in_process(system, web)
        if system.options.demo:
            with system.screen.step("catalog and stock, known to orders") as step:
                step.text = f"catalog and stock: {await seed.seed(stage)} products, known to orders"
            await _perform(stage, started=system.started)
        summary.show(stage, filled=system.options.demo)
        if (memory := system.memory()) is not None:
            system.screen.say(f"memory of all processes: {memory / MEGABYTE:,.0f} MB")


async def tell_remote(home: Home, running: Running, screen: Screen) -> None:
    """`shop demo`: the same on a system that already runs."""
    async with Web(running.gateway) as web:
        stage = remote(home, running, screen, web)
        with screen.step("catalog and stock, known to orders"):
            await seed.seed(stage)
        await _perform(stage)


async def _perform(stage: Stage, *, started: float | None = None) -> None:
    customer, admin = stage.customer(), stage.admin()
    with stage.screen.step(f"customer {customer.email} registered and logged in"):
        await customer.register(CUSTOMER_NAME)
        await customer.login()
        await admin.login()
    await timeline.show(stage, customer, admin)
    if started is not None:
        stage.screen.say("")
        stage.screen.say(f"from `make up` to here {time.monotonic() - started:.1f} s")
    await outage.show(stage, customer)
