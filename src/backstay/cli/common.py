"""What the commands share: running, output, and reading of arguments."""

import asyncio
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from backstay.errors import BackstayError, ConfigError

if TYPE_CHECKING:
    from backstay.db import Database

_BROKERS = re.compile(r"(kafka://)?[\w.\-\[\]]+:\d+(,[\w.\-\[\]]+:\d+)*/?\Z")


MISUSED = 2
"""Exit status where the command line, a setting or the surroundings have to change first."""
REACH_TIMEOUT = 5.0  # seconds for a connection to a server that a command needs
EXTRAS = {
    "relay": "outbox",
    "outbox": "outbox",
    "dead-letters": "messaging",
    "gateway": "gateway",
    "registry": "discovery",
}
"""The extra of each command."""
BROKER_MODULES = ("asyncpg", "confluent_kafka")
ON_DATABASE = {
    "outbox": ("adopt", "status", "park", "resume", "skip", "replay"),
    "dead-letters": ("list", "replay", "discard", "audit"),
}
"""Commands whose first argument is a database."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; errors are reported as `reported` does."""
    with reported():
        asyncio.run(work)


@contextmanager
def reported() -> Iterator[None]:
    """Turn errors into one sentence on stderr and the end of the process.

    Status 2 for what the caller has to change first: an option, a setting, a missing extra, an address; 1 for what the
    command was refused; 130 after Ctrl-C.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        fail(_extra_missing(error), MISUSED)
    except (ConfigError, OSError) as error:
        fail(str(error), MISUSED)
    except BackstayError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("interrupted", 128 + signal.SIGINT)


def _extra_missing(error: ModuleNotFoundError) -> str:
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    extra = "wal" if "--wal" in sys.argv else EXTRAS.get(words[0] if words else "", "all")
    if extra == "gateway" and error.name in BROKER_MODULES:  # wanted by --revocations-topic only
        extra = "messaging"
    return (
        f"this command needs the extra {extra!r} (pip install 'backstay[{extra}]'): there is no module {error.name!r}"
    )


async def reach(url: str, *, connect: bool = True) -> None:
    """Raise ConfigError unless the server in a URL or HOST:PORT[,HOST:PORT] is known, and accepts connections.

    Without `connect` its name must be known only: for commands that go on while a server is down.
    """
    problems = []
    for place in url.rpartition("://")[2].partition("/")[0].rpartition("@")[2].split(","):
        parts = urlsplit(f"//{place}")
        try:
            host, port = parts.hostname, parts.port or (5432 if url.startswith("postgres") else 9092)
        except ValueError as error:
            raise ConfigError(f"{place!r} is no address: {error}") from error
        if not host:
            return  # a socket of the file system, or a name for libpq's own files
        try:
            await _reach(host, port, connect)
        except (OSError, TimeoutError) as error:
            problems.append(_unreachable(host, port, error))
        else:
            return
    raise ConfigError("; ".join(problems))


async def _reach(host: str, port: int, connect: bool) -> None:
    async with asyncio.timeout(REACH_TIMEOUT):
        if not connect:
            await asyncio.get_running_loop().getaddrinfo(host, port)
            return
        _, writer = await asyncio.open_connection(host, port)
        writer.close()


def _unreachable(host: str, port: int, error: Exception) -> str:
    if isinstance(error, socket.gaierror):
        return f"host {host!r} is unknown: {error.strerror}"
    if isinstance(error, TimeoutError) and not getattr(error, "strerror", None):
        return f"{host}:{port} doesn't answer within {REACH_TIMEOUT:g} s"
    return f"{host}:{port} can't be reached: {getattr(error, 'strerror', None) or error}"


def say(text: str) -> None:
    """Print a line on stdout, flushed."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def fail(text: str, status: int = 1) -> NoReturn:
    """Print a line on stderr and exit with that status; 2 means wrong arguments or settings."""
    sys.stderr.write(f"backstay: {text}\n")
    raise SystemExit(status)


def database_name(dsn: str) -> str:
    """Return the name of the database in its URL; ConfigError if it is none."""
    name = urlsplit(dsn).path.strip("/")
    if not dsn.startswith(("postgresql://", "postgres://")) or not name:
        raise ConfigError(f"{dsn.split('@')[-1]!r} is no database: postgresql://user:password@host:port/database")
    return name


@asynccontextmanager
async def database(dsn: str) -> "AsyncIterator[Database]":
    """Open the database DSN for one command; raises ConfigError when it can't be reached."""
    from backstay.db import Database

    name = database_name(dsn)
    await reach(dsn)
    async with Database(name, dsn=dsn, startup_timeout=0.0) as opened:
        yield opened


def completed(words: list[str], environ: Mapping[str, str]) -> list[str]:
    """Return the command line with the addresses that the environment gives and the line doesn't.

    DATABASE_URL stands for the first argument of `relay`, `outbox …` and `dead-letters …`, KAFKA for the second of
    `relay`: so no password has to be an argument, which every user of the machine can read.
    """
    at = {"relay": 1, "outbox": 2, "dead-letters": 2}.get(words[0] if words else "", 0)
    dsn, kafka = environ.get("DATABASE_URL", ""), environ.get("KAFKA", "")
    if not at or len(words) < at:
        return words
    rest = words[at:]
    if words[0] == "relay" and kafka and not any(_BROKERS.match(word) for word in rest):
        rest = [*rest, kafka]
    if dsn and not any(word.startswith(("postgresql://", "postgres://")) for word in rest):
        rest = [dsn, *rest]
    return words[:at] + rest


def check_database(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raise ConfigError if a command that works on a database is given none."""
    if len(words) < 2 or words[1] not in ON_DATABASE.get(words[0], ()) or "--help" in words:
        return
    if not environ.get("DATABASE_URL") and not any("://" in word for word in words[2:]):
        command = " ".join(["backstay", *words[:2]])
        raise ConfigError(
            f"`{command}` needs a database: name it first (postgresql://user:password@host:port/database), "
            "or set the variable DATABASE_URL"
        )


def address(kafka: str) -> str:
    """Return HOST:PORT of a broker given with or without `kafka://`."""
    return kafka.removeprefix("kafka://").rstrip("/")
