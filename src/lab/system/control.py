"""Control of a running system by another command: stop or start one of its processes.

A line of JSON over the loopback: the token proves that the sender can read the home's private files.
"""

import asyncio
import hmac
import json
import signal
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from backstay.dev.home import Running
from backstay.dev.ports import HOST
from backstay.dev.supervisor import Supervisor

TIMEOUT = 40.0  # seconds; a stop may have to wait for its patience
LINE_LIMIT = 4096  # bytes
VERBS = ("status", "stop", "start", "environment", "kill")


Answering = Callable[[str], Awaitable[Any]]


class ControlRefused(RuntimeError):
    """The running system refused the request, for the reason in the message."""


class Control:
    """The listening side, owned by the system."""

    def __init__(self, supervisor: Supervisor, token: str) -> None:
        self._supervisor, self.token = supervisor, token
        self._more: dict[str, Answering] = {}
        self._server: asyncio.Server | None = None

    def teach(self, verb: str, answering: Answering) -> None:
        """One more verb; a ControlRefused or KeyError that it raises goes back as a refusal."""
        self._more[verb] = answering

    async def start(self) -> int:
        """Listen; returns the port."""
        self._server = await asyncio.start_server(self._serve, HOST, 0, limit=LINE_LIMIT)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def close(self) -> None:
        """Stop listening; idempotent."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                asked = json.loads(await reader.readline())
                writer.write(json.dumps(await self._answer(asked)).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not hmac.compare_digest(str(asked.get("token")), self.token):
            return {"refused": "wrong token"}
        try:
            return {"done": await self._do(str(asked.get("do")), str(asked.get("name")))}
        except (KeyError, ControlRefused) as error:
            return {"refused": str(error.args[0])}

    async def _do(self, verb: str, name: str) -> Any:
        match verb:
            case "status":
                return [asdict(child) for child in self._supervisor.statistics()]
            case "stop":
                await self._supervisor.stop(name)
            case "start":
                await self._supervisor.start(name)
            case "environment":
                return self._supervisor.environment_of(name)
            case "kill":
                self._supervisor.kill(name, signal.SIGKILL)
            case _ if verb in self._more:
                return await self._more[verb](name)
            case _:
                raise KeyError(f"{verb!r} is none of {', '.join((*VERBS, *self._more))}")
        return True


async def tell(running: Running, verb: str, name: str = "") -> Any:
    """Send a request to a running system; ControlRefused with its reason, OSError when it is gone."""
    async with asyncio.timeout(TIMEOUT):
        reader, writer = await asyncio.open_connection(HOST, running.control)
        try:
            writer.write(json.dumps({"token": running.control_token, "do": verb, "name": name}).encode() + b"\n")
            answer = json.loads(await reader.readline())
        finally:
            writer.close()
    if "refused" in answer:
        raise ControlRefused(answer["refused"])
    return answer["done"]
