"""`make up`: bring the system up, fill the shop, tell the story, and stay until somebody says stop."""

import asyncio

from backstay.errors import BackstayError
from shop.local.home import HomeInUse
from shop.local.options import Options
from shop.local.ports import PortTaken
from shop.local.screen import Screen
from shop.local.stopping import Stopped, until_stopped
from shop.local.system import System

MEGABYTE = 1 << 20


async def up(options: Options, screen: Screen) -> int:
    """Run a system until it is stopped; returns the exit status."""
    system = System(options, screen)
    try:
        await until_stopped(_live(system), at_once=system.kill, tell=screen.note)
    except Stopped:
        screen.say("all stopped")
        return 0
    except (HomeInUse, PortTaken) as error:
        screen.problem(str(error))
    except (BackstayError, RuntimeError, OSError) as error:
        screen.problem(f"{error}\n\nEverything was stopped.")
    return 1


async def _live(system: System) -> None:
    system.screen.title("Backstay", f"home {system.home.path}")
    async with system:
        story = asyncio.create_task(_tell(system), name="story")
        try:
            await asyncio.wait({story, system.supervisor.failure}, return_when=asyncio.FIRST_COMPLETED)
            if not system.supervisor.failure.done():
                await story
                await system.supervisor.failure
        finally:
            story.cancel()
            await asyncio.gather(story, return_exceptions=True)
        raise system.supervisor.failure.result()


async def _tell(system: System) -> None:
    from shop.demo import story  # not before it's needed: only this command tells it

    await story.tell(system)
