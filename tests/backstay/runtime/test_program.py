"""A program reports all that is wrong with its settings at once, and exits with a status that says why."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from backstay.errors import BackstayError, ConfigError
from backstay.runtime import LogSettings, Port, program


@dataclass(frozen=True, kw_only=True)
class Mine(LogSettings):
    port: Port = 8080
    store: str = ""
    peer: str = ""


@dataclass(frozen=True, kw_only=True)
class Strict(LogSettings):
    name: str
    port: Port = 0


class Program:
    """Needs a store and a port other than 0."""

    def __init__(self, settings: Mine) -> None:
        if settings.peer == "refused":
            raise ConfigError("PEER='refused': is no peer")
        self.settings = settings

    def missing(self, roles: Collection[str] | None = None) -> list[str]:
        return [f"STORE is not set: {sorted(roles or ())} need it"] if not self.settings.store else []

    def run(self, roles: Collection[str] | None = None) -> None:
        raise AssertionError("not run here")


def problems(**environ: str) -> list[str]:
    """What is wrong with an environment, by the variable."""
    with pytest.raises(ConfigError) as refused:
        program.load(lambda: Mine.read(environ), Program, roles=["api"])
    return [problem.partition("=")[0].partition(" ")[0] for problem in refused.value.problems]


def test_wrong_values_and_missing_parts_are_one_report() -> None:
    """Nobody mends a wrong value only to learn of a missing one."""
    assert problems(PORT="x", LOG_LEVEL="loud") == ["LOG_LEVEL", "PORT", "STORE"]
    assert problems(PORT="x", PEER="refused") == ["PORT", "PEER"]
    assert problems() == ["STORE"]


def test_a_setting_is_reported_once() -> None:
    """What is wrong by itself isn't reported as missing, too, because it stood at its default."""

    class Picky(Program):
        def missing(self, roles: Collection[str] | None = None) -> list[str]:
            return ["PORT is not set: it is needed"]

    with pytest.raises(ConfigError) as refused:
        program.load(lambda: Mine.read({"PORT": "x"}), Picky)

    assert [problem[:9] for problem in refused.value.problems] == ["PORT='x':"]


def test_settings_that_cannot_be_built_are_still_reported() -> None:
    """A contradiction among settings may break the composition: its own error says nothing, and isn't shown."""

    def build(_: Mine) -> Program:
        raise ZeroDivisionError

    with pytest.raises(ConfigError, match=r"^PORT='x': [^\n]*$"):
        program.load(lambda: Mine.read({"PORT": "x"}), build)


def test_a_required_setting_that_is_missing_ends_the_look() -> None:
    """Without it nothing can be built, so that its own report is all there is."""
    with pytest.raises(ConfigError) as refused:
        program.load(lambda: Strict.read({"PORT": "x"}), lambda _: Program(Mine()))

    assert [problem.partition(" ")[0] for problem in refused.value.problems] == ["NAME", "PORT='x':"]


def test_good_settings_make_a_process() -> None:
    """It gets what was read."""
    assert program.load(lambda: Mine.read({"STORE": "s"}), Program).settings.store == "s"


@pytest.mark.parametrize(
    ("error", "status"), [(ConfigError("PORT=1: taken"), 2), (BackstayError("gone"), 1), (OSError("no route"), 1)]
)
def test_exit_status_says_who_has_to_act(
    error: Exception, status: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 where a setting has to change, else 1; one line on standard error."""
    monkeypatch.setattr(program, "configure", lambda *_: None)

    async def serve() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        program.run("mine", Mine, serve)

    assert (ended.value.code, capsys.readouterr().err) == (status, f"mine: {error}\n")


async def test_process_that_ends_by_itself_raises() -> None:
    """Its supervisor must learn of it: the error of the process is that of `serve`."""
    events: list[str] = []

    class Running:
        def stop_draining(self) -> None: ...

        async def ended(self) -> None:
            await asyncio.sleep(0)
            raise RuntimeError("the server broke")

        def described(self) -> dict[str, Any]:
            return {}

    @asynccontextmanager
    async def running() -> AsyncIterator[Running]:
        events.append("started")
        try:
            yield Running()
        finally:
            events.append("stopped")

    with pytest.raises(RuntimeError, match="the server broke"):
        await program.serve("mine", running())

    assert events == ["started", "stopped"]
