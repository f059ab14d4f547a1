"""Concurrent work that has an owner: nothing goes on after the call that began it has ended."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def gather_all(*works: Awaitable[T]) -> list[T]:
    """Await all of them concurrently and return their results in order.

    If one fails, the others are awaited to their end all the same and then its error is raised (the first one's, in
    the order given). `asyncio.gather` would leave them running, without an owner.
    """
    results = await asyncio.gather(*works, return_exceptions=True)
    found: list[T] = []
    for result in results:
        if isinstance(result, BaseException):
            raise result
        found.append(result)
    return found


__all__ = ["gather_all"]
