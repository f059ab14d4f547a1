"""`make up`: bring the system up, fill the shop, tell the story, and stay until somebody says stop."""

import asyncio
import contextlib
from dataclasses import replace
from typing import Any, NoReturn

from backstay.errors import BackstayError
from shop.chaos.faults import Faults
from shop.demo import story
from shop.local.home import HomeInUse, HomeUnusable
from shop.local.options import Options
from shop.local.ports import PortTaken
from shop.local.screen import Screen
from shop.local.stopping import Stopped, until_stopped
from shop.local.system import System


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
        telling = asyncio.create_task(story.tell(system), name="story")
        try:
            both: list[asyncio.Future[Any]] = [telling, system.supervisor.failure]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if telling.done():
                await telling
            raise await system.supervisor.failure
        finally:
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
