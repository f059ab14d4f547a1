"""Ctrl-C: once in order, twice at once."""

import signal
import subprocess
import sys

from backstay.dev.stopping import INTERRUPTED

CODE = """
import asyncio
from backstay.dev.stopping import Stopped, until_stopped

def say(text):
    print(text, flush=True)

async def work():
    say("working")
    try:
        await asyncio.sleep(60)
    finally:
        {leaving}
        say("left in order")

async def main():
    try:
        await until_stopped(work(), at_once=lambda: say("at once"), tell=say)
    except Stopped:
        say("stopped")

asyncio.run(main())
"""


HEEDED = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"
"""Whatever these tests were started with: nohup's children inherit that the signal is ignored."""


def start(leaving: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", HEEDED + CODE.format(leaving=leaving)]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "working\n"
    return process


def test_the_first_signal_stops_in_order() -> None:
    """Work is cancelled and may clean up; the caller hears that it was asked for."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = start("pass")
        process.send_signal(number)
        output, _ = process.communicate(timeout=20)

        assert output.splitlines() == ["stopping; once more to stop at once", "left in order", "stopped"]
        assert process.returncode == 0


def test_under_nohup_the_end_of_the_terminal_is_ignored() -> None:
    """What was started to outlive its terminal does so, and still stops by SIGTERM."""
    argv = ["nohup", sys.executable, "-c", CODE.format(leaving="pass")]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)

    assert output.splitlines() == ["stopping; once more to stop at once", "left in order", "stopped"]


HELPED = """
import asyncio
from backstay.dev.program import run
from backstay.dev.stopping import Stopped, until_stopped

async def work():
    print("working", flush=True)
    await asyncio.to_thread(run, ["sh", "-c", "sleep 60 & wait"], timeout=60)

async def main():
    try:
        await until_stopped(work(), at_once=lambda: None, tell=lambda text: print(text, flush=True))
    except Stopped:
        print("stopped", flush=True)

asyncio.run(main())
"""


def test_a_program_that_a_thread_waits_for_ends_with_the_first_signal() -> None:
    """Ctrl-C while Maven fetches or initdb works doesn't wait for them, nor for what they have started."""
    process = subprocess.Popen([sys.executable, "-c", HELPED], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "working\n"
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)

    assert output.splitlines() == ["stopping; once more to stop at once", "stopped"]


def test_the_second_signal_stops_at_once() -> None:
    """Who asks twice doesn't wait for the order."""
    process = start("await asyncio.sleep(60)")
    process.send_signal(signal.SIGINT)
    assert process.stdout
    assert process.stdout.readline().startswith("stopping")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)

    assert output == "at once\n"
    assert process.returncode == INTERRUPTED
