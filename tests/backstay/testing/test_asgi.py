"""An application is started and stopped as a server does it."""

from typing import Any

import pytest

from backstay.testing import started


class App:
    def __init__(self, *answers: str) -> None:
        self.answers = list(answers)
        self.heard: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["db"] = "open"
        for answer in self.answers:
            self.heard.append((await receive())["type"])
            await send({"type": f"lifespan.{answer}", "message": "no database"})


async def test_start_and_stop() -> None:
    """The block runs between start and stop, and sees the application's state."""
    app = App("startup.complete", "shutdown.complete")
    async with started(app) as state:
        assert state == {"db": "open"}
        assert app.heard == ["lifespan.startup"]

    assert app.heard == ["lifespan.startup", "lifespan.shutdown"]


@pytest.mark.parametrize(
    ("app", "said"),
    [
        (App("startup.failed"), "startup failed: no database"),
        (App("startup.complete", "shutdown.failed"), "shutdown failed: no database"),
    ],
)
async def test_failures(app: App, said: str) -> None:
    """An application that can't start, or stops badly, is an error of the test."""
    with pytest.raises(RuntimeError, match=said):
        async with started(app):
            pass


async def test_an_application_without_a_lifespan() -> None:
    """An application that raises for this scope is used without one."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise TypeError(scope["type"])

    async with started(app) as state:
        assert state == {}
