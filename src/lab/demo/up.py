"""`make up`: start the system, fill the shop, show the walkthrough, and stay until a signal."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, NoReturn

from backstay.dev.home import HomeInUse, HomeUnusable
from backstay.dev.ports import PortTaken
from backstay.dev.screen import Screen
from backstay.dev.stopping import Stopped, until_stopped
from backstay.errors import BackstayError
from lab.demo import walkthrough
from lab.faults.catalog import Faults
from lab.system.options import Options
from lab.system.system import System


async def up(options: Options, screen: Screen) -> int:
    """Run a system until it is stopped; returns the exit status: 2 for what has to change first."""
    system = System(replace(options, faults=options.faults or options.home / "faults"), screen)
    try:
        await until_stopped(_live(system), at_once=system.kill, tell=screen.note)
    except Stopped:
        screen.say("all stopped")
        return 0
    except (HomeInUse, HomeUnusable, PortTaken) as error:
        screen.problem(str(error))
        return 2
    except (BackstayError, RuntimeError, OSError) as error:
        screen.problem(f"{error}\n\nEverything was stopped.")
    return 1


async def _live(system: System) -> NoReturn:
    system.screen.title("Backstay", f"home {system.home.path}")
    faults = Faults(system)
    system.teach("fault", faults.order)
    async with system, contextlib.aclosing(faults):
        telling = asyncio.create_task(walkthrough.tell(system), name="story")
        try:
            both: list[asyncio.Future[Any]] = [telling, system.supervisor.failure]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                await telling
            raise await system.supervisor.failure
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
