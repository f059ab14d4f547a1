"""An ASGI application in the test's own process: started and stopped as a server does it, without a socket.

async with started(app), httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
    ...
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


@asynccontextmanager
async def started(app: Any) -> AsyncIterator[dict[str, Any]]:
    """Run the application's lifespan around the block; yields its state.

    Raises:
        RuntimeError: the application couldn't start, or failed when it stopped.
    """
    to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    from_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    state: dict[str, Any] = {}
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    task = asyncio.create_task(app(scope, to_app.get, from_app.put), name="lifespan")

    async def step(name: str) -> None:
        await to_app.put({"type": f"lifespan.{name}"})
        answer = asyncio.create_task(from_app.get())
        await asyncio.wait((task, answer), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            await task
            raise RuntimeError(f"the application ended during its {name}")
        if answer.result()["type"] != f"lifespan.{name}.complete":
            raise RuntimeError(f"{name} failed: {answer.result().get('message', '')}")

    try:
        await step("startup")
        yield state
        await step("shutdown")
        await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


__all__ = ["started"]
