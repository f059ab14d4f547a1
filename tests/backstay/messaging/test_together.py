"""Parts of several lanes in one transaction."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from backstay.messaging import Record
from backstay.messaging.delivery import Delivery
from backstay.messaging.together import Together
from backstay.testing import eventually


def deliveries(count: int) -> list[Delivery]:
    return [Delivery(Record("t", b"k", b""), uuid4()) for _ in range(count)]


class Transactions:
    """Remembers what went together; the first waits for `go`."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.sizes: list[int] = []
        self.go = asyncio.Event()
        self._error = error

    async def __call__(self, run: list[Delivery]) -> Any:
        self.sizes.append(len(run))
        if len(self.sizes) == 1:
            await self.go.wait()
        if self._error is not None:
            raise self._error


async def test_what_waits_goes_together() -> None:
    """The first goes at once; what comes while it is under way goes next, as one."""
    transact = Transactions()
    together = Together(transact, 0.001)
    first = asyncio.create_task(together.take(deliveries(1)))
    await eventually(lambda: transact.sizes == [1])
    others = [asyncio.create_task(together.take(deliveries(n))) for n in (2, 3)]
    await asyncio.sleep(0)
    transact.go.set()

    assert await asyncio.gather(first, *others) == [True, True, True]
    assert transact.sizes == [1, 5]


@pytest.mark.parametrize("error", [ValueError(), asyncio.CancelledError()])
async def test_a_failure_sends_everybody_home(error: BaseException) -> None:
    """Each lane learns that nothing has happened, also when it was a handler that raised CancelledError."""
    transact = Transactions(error)
    transact.go.set()
    together = Together(transact, 0.001)

    async with asyncio.timeout(30):
        assert await asyncio.gather(together.take(deliveries(1)), together.take(deliveries(1))) == [False, False]
        assert await together.take(deliveries(1)) is False


async def test_a_lane_that_leaves_takes_along_what_has_not_begun() -> None:
    """Cancelled before its turn, its part is never done; cancelled in flight, the transaction ends for the others."""
    transact = Transactions()
    together = Together(transact, 0.001)
    first = asyncio.create_task(together.take(deliveries(1)))
    await eventually(lambda: transact.sizes == [1])
    waiting = asyncio.create_task(together.take(deliveries(7)))
    await asyncio.sleep(0)
    waiting.cancel()
    first.cancel()
    await asyncio.gather(waiting, first, return_exceptions=True)
    transact.go.set()

    assert await together.take(deliveries(2)) is True
    assert transact.sizes == [1, 2]
