"""A service under the ASGI servers of others: requests, an ordered stop, and several workers."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backstay.http import HttpError
from backstay.testing import eventually
from backstay.testing.api import Api

MODULE = '''
import os
from pathlib import Path

from backstay.service import Service, get


class Part:
    """Leaves a file with the number of its process while it runs."""

    def __init__(self, name, role=None):
        self.name, self.role = name, role

    async def __aenter__(self):
        self.file = Path(os.environ["FOLDER"]) / f"{self.name}-{os.getpid()}"
        self.file.touch()

    async def __aexit__(self, *_):
        self.file.unlink()


@get("/pid", public=True)
async def pid() -> int:
    return os.getpid()


app = Service("things", routes=[pid], owns=[Part("database"), Part("consumer", "consumer")])
'''

COMMANDS = {
    "uvicorn": ["-m", "uvicorn", "served:app", "--no-access-log", "--port", "{port}", "--workers", "{workers}"],
    "granian": [
        *("-m", "granian", "--interface", "asgi", "served:app", "--port", "{port}", "--workers", "{workers}"),
        "--respawn-failed-workers",  # else it ends when a worker does
    ],
}
everywhere = pytest.mark.parametrize("server", list(COMMANDS))


def free_port() -> int:
    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


@asynccontextmanager
async def serving(server: str, folder: Path, workers: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, Api]]:
    """Run the service under a server, until it answers."""
    (folder / "served.py").write_text(MODULE)
    port = free_port()
    environ = {
        **os.environ,
        "FOLDER": str(folder),
        "TMPDIR": str(folder),
        "PYTHONPATH": str(folder),
        "LOG_LEVEL": "warning",
        "PORT": str(port),
    }
    command = [part.format(port=port, workers=workers) for part in COMMANDS[server]]
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=environ, cwd=folder, stdout=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        async with Api(port) as api:

            async def answers() -> bool:
                try:
                    return (await api.ask("GET", "/pid")).status == 200
                except (OSError, HttpError):
                    return False

            await eventually(answers, timeout=30)
            yield process, api
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)  # the server and its workers
            await process.wait()


def running(folder: Path, name: str) -> set[int]:
    """Return the processes in which a part runs."""
    return {int(file.name.rpartition("-")[2]) for file in folder.glob(f"{name}-*")}


@everywhere
async def test_one_worker(server: str, tmp_path: Path) -> None:
    """It answers with what it owns, and stops in order when the server does."""
    async with serving(server, tmp_path, 1) as (process, api):
        pid = (await api.ask("GET", "/pid")).json
        assert running(tmp_path, "database") == running(tmp_path, "consumer") == {pid}
        assert (await api.ask("GET", "/nowhere")).slug == "not-found"
        assert (await api.ask("HEAD", "/pid")).body == b""
        assert (await api.ask("GET", "/health/ready")).json["status"] == "UP"

        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)
    assert running(tmp_path, "database") == running(tmp_path, "consumer") == set()


@everywhere
async def test_several_workers(server: str, tmp_path: Path) -> None:
    """Each answers; consumers run in one of them, and in another one when that is killed."""
    async with serving(server, tmp_path, 2) as _:
        await eventually(lambda: len(running(tmp_path, "database")) == 2, timeout=30)
        (primary,) = running(tmp_path, "consumer")
        os.kill(primary, signal.SIGKILL)
        await eventually(lambda: running(tmp_path, "consumer") - {primary}, timeout=30)
        await eventually(lambda: len(running(tmp_path, "database") - {primary}) == 2, timeout=30)

        assert len(running(tmp_path, "consumer") - {primary}) == 1
