"""What `make up` says last is true of the system it has started."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from shop.demo import farewell
from shop.demo.stage import Stage
from shop.local.home import Home, Recorded, Running
from shop.local.screen import Screen
from shop.local.web import Web


@pytest.mark.parametrize("filled", [True, False])
async def test_only_what_is_there_is_offered(tmp_path: Path, filled: bool) -> None:
    """Without the demo nobody has registered and nothing is for sale: it says how to change that instead."""
    running = Running(
        supervisor=Recorded("supervisor", 1, 1),
        gateway="http://127.0.0.1:1",
        discovery="http://127.0.0.1:2",
        kafka="127.0.0.1:3",
        kafka_flavor="embedded",
        control=0,
        control_token="",
        databases={},
        mail="",
    )
    shown = io.StringIO()

    async def nobody(_: str) -> None: ...

    async with Web(running.gateway) as web:
        screen = Screen(Console(file=shown, width=300))
        stage = Stage(running=running, home=Home(tmp_path), screen=screen, web=web, stop=nobody, start=nobody)
        farewell.show(stage, filled=filled)

    offered = ["ada@shop.example" in shown.getvalue(), "curl " in shown.getvalue(), "shop seed" in shown.getvalue()]
    assert offered == [filled, filled, not filled]
