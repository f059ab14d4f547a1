"""Starting and stopping: of what an application owns, and of an application."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

from backstay.asgi.types import App, Message, Scope


def lifespan(*owned: AbstractAsyncContextManager[Any]) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """Return a lifespan for `FastAPI(lifespan=…)`, `Starlette(lifespan=…)` or `Litestar(lifespan=[…])`.

    It enters the async context managers in their order, and leaves them in reverse.
    """

    @asynccontextmanager
    async def owning(_: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for each in owned:
                await stack.enter_async_context(each)
            yield

    return owning


@asynccontextmanager
async def started(app: App) -> AsyncIterator[dict[str, Any]]:
    """Run an application's lifespan around the block, as a server does; yields its state.

    An application that raises for this scope has no lifespan, which ASGI allows.

    Raises:
        RuntimeError: the application couldn't start, or failed when it stopped.
    """
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    task = asyncio.ensure_future(app(scope, to_app.get, from_app.put))

    async def step(name: str) -> bool:
        """Send an event and wait for the answer; False if the application ended instead."""
        await to_app.put({"type": f"lifespan.{name}"})
        answer = asyncio.create_task(from_app.get())
        await asyncio.wait((task, answer), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            return False
        if answer.result()["type"] != f"lifespan.{name}.complete":
            raise RuntimeError(f"{name} failed: {answer.result().get('message', '')}")
        return True

    try:
        has_lifespan = await step("startup")
        yield state
        if has_lifespan and not await step("shutdown"):
            await task
            raise RuntimeError("the application ended before its shutdown")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


__all__ = ["lifespan", "started"]
