"""TCP ports on the loopback: finding free ones, and saying who holds a taken one."""

import fcntl
import os
import random
import socket
import tempfile
from collections import deque
from pathlib import Path

from backstay.dev.processes import holder

RANGE = range(20_000, 32_000)
"""Where free ports are looked for: below those that the system lends to outgoing connections."""
HOST = "127.0.0.1"

KEPT = 200  # ports handed out last, each kept from others until this process ends
_reserved: deque[int] = deque()  # descriptors of their locks


class PortTaken(RuntimeError):
    """A port that we need is in use."""


def free_port() -> int:
    """Return a free port, reserved among our processes until one listens on it."""
    while True:
        port = random.choice(RANGE)  # noqa: S311 - not a secret
        if reserve(port):
            return port


def reserve(port: int) -> bool:
    """Return whether the port is free and not reserved by another process of ours; then it is reserved for us."""
    folder = Path(tempfile.gettempdir()) / f"backstay-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    lock = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except OSError:
        os.close(lock)
        return False
    _reserved.append(lock)
    if len(_reserved) > KEPT:
        os.close(_reserved.popleft())
    return True


def release() -> None:
    """Give up every reservation, as the end of this process does."""
    while _reserved:
        os.close(_reserved.popleft())


def is_open(port: int, host: str = HOST, timeout: float = 0.3) -> bool:
    """Return whether a process accepts connections there."""
    try:
        socket.create_connection((host, port), timeout).close()
    except OSError:
        return False
    return True


def choose(wanted: int, *, variable: str, what: str) -> int:
    """Return `wanted` when it is free, a free port for 0; PortTaken names the owner and the way out."""
    if wanted == 0:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as error:
            raise PortTaken(_complaint(wanted, variable, what)) from error
    return wanted


def _complaint(port: int, variable: str, what: str) -> str:
    by = f" by {owner}" if (owner := holder(port)) else ""
    return f"Port {port} ({what}) is taken{by}. Stop that, or choose another: make up {variable}=0 takes a free one."
