"""What the commands share: how they run, what they say, and how they read what they were given."""

import asyncio
import logging
import signal
import sys
from collections.abc import Coroutine
from typing import Any, NoReturn
from urllib.parse import urlsplit

from backstay.errors import BackstayError, ConfigError


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; what it refuses is told on stderr, with status 1."""
    try:
        asyncio.run(work)
    except BackstayError as error:
        fail(str(error))


async def until_stopped() -> None:
    """Return at SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def say(text: str) -> None:
    """A line on stdout, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(text: str, status: int = 1) -> NoReturn:
    """A line on stderr, and the end with that status; 2 is for what was asked for wrongly."""
    sys.stderr.write(f"backstay: {text}\n")
    raise SystemExit(status)


def log_to_stderr() -> None:
    """Log lines go to stderr."""
    handler = logging.StreamHandler()
    line = "%(asctime)s %(levelname)s %(message)s %(reason)s"
    handler.setFormatter(logging.Formatter(line, defaults={"reason": ""}))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def database_name(dsn: str) -> str:
    """The name of the database in its URL; ConfigError if it is none."""
    name = urlsplit(dsn).path.strip("/")
    if not dsn.startswith(("postgresql://", "postgres://")) or not name:
        raise ConfigError(f"{dsn.split('@')[-1]!r} is no database: postgresql://user:password@host:port/database")
    return name


def address(kafka: str) -> str:
    """HOST:PORT of a broker, with or without `kafka://`."""
    return kafka.removeprefix("kafka://").rstrip("/")
