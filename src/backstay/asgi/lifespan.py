"""What an application owns, started and stopped with it."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any


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


__all__ = ["lifespan"]
