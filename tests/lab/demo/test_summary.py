"""What `make up` says last is true of the system it has started."""

import asyncio
import io
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from backstay.dev.home import Home, Recorded, Running
from backstay.dev.screen import Screen
from backstay.dev.web import Web
from backstay.http import HttpReply, HttpServer
from lab.demo import summary
from lab.system.context import Stage

RUNNING = Running(
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


async def nobody(_: str) -> None: ...


async def test_printed_commands_survive_spaces_and_quotes(tmp_path: Path) -> None:
    """Each line runs in a shell as it is, wherever the home lies."""
    home = Home(tmp_path / 'it\'s a "home"')
    home.secret("customer")
    system = HttpServer(lambda request: HttpReply(200, request.body), "127.0.0.1", 0)
    async with system, Web(f"http://127.0.0.1:{system.port}") as web:
        stage = Stage(running=RUNNING, home=home, screen=Screen(), web=web, stop=nobody, start=nobody)
        login = summary.curl_lines(replace(stage, running=replace(RUNNING, gateway=web.base)))[1]
        read = login.removeprefix("TOKEN=$(").partition(" | sed")[0]
        answer = await asyncio.to_thread(subprocess.run, ["sh", "-c", read], capture_output=True, check=True)
    command = f"{summary.shop_command(home.path)} status".replace("./shop", "sh -c 'echo $BACKSTAY_HOME'")
    printed = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True).stdout

    assert json.loads(answer.stdout)["password"] == home.secret("customer")
    assert printed == f"{home.path}\n"


@pytest.mark.parametrize("filled", [True, False])
async def test_only_what_is_there_is_offered(tmp_path: Path, filled: bool) -> None:
    """Without the demo nobody has registered and nothing is for sale: it says how to change that instead."""
    shown = io.StringIO()

    async with Web(RUNNING.gateway) as web:
        screen = Screen(Console(file=shown, width=300))
        stage = Stage(running=RUNNING, home=Home(tmp_path), screen=screen, web=web, stop=nobody, start=nobody)
        summary.show(stage, filled=filled)

    offered = ["ada@shop.example" in shown.getvalue(), "curl " in shown.getvalue(), "shop seed" in shown.getvalue()]
    assert offered == [filled, filled, not filled]
