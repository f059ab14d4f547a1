"""The fixtures work in anybody's project, start only what is used, and leave nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from backstay.testing import eventually, scaled

TEST = """
import socket
import subprocess
import sys
from urllib.parse import urlsplit


def connects(host, port):
    with socket.create_connection((host, int(port)), timeout=5):
        return True


def test_a_database_of_its_own(database, postgres):
    url = urlsplit(database)
    assert url.path.startswith("/test_")
    assert connects(url.hostname, url.port)
    postgres.cluster.run_sql("CREATE TABLE orders ()", url.path[1:])


def test_another_database(database, postgres):
    name = urlsplit(database).path[1:]
    assert postgres.cluster.run_sql("SELECT count(*) FROM pg_tables WHERE tablename = 'orders'", name) == "0"


def test_a_broker(kafka):
    assert kafka.flavor == "embedded"
    assert connects(*kafka.bootstrap.split(":"))
"""
NOTHING = """
import sys


def test_without_servers():
    heavy = {"psutil", "confluent_kafka", "asyncpg", "backstay.dev.servers"} & sys.modules.keys()
    assert not heavy
"""
STUCK = """
import time


def test_stuck(postgres, kafka, tmp_path_factory):
    (tmp_path_factory.getbasetemp() / "up").touch()
    time.sleep(600)
"""


def environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))}
    return {**own, "BACKSTAY_TEST_KAFKA": "embedded"}


def command(folder: Path, *options: str) -> list[str]:
    (folder / "pytest.ini").write_text("[pytest]\n")
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={folder / 'temp'}", *options]


@pytest.mark.parametrize("test", [TEST, NOTHING], ids=["servers", "nothing"])
def test_the_fixtures_in_a_project_of_its_own(tmp_path: Path, test: str) -> None:
    """Installed is enough: no conftest, no configuration; a run without servers imports nothing for them."""
    (tmp_path / "test_it.py").write_text(test)
    done = subprocess.run(
        command(tmp_path, str(tmp_path)), cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=180
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
async def test_an_interrupted_run_leaves_no_server(tmp_path: Path, sent: signal.Signals) -> None:
    """Neither Ctrl-C nor a kill -9 of pytest leaves PostgreSQL or the broker running."""
    (tmp_path / "test_it.py").write_text(STUCK)
    process = subprocess.Popen(
        command(tmp_path, str(tmp_path)), cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL
    )
    try:
        await eventually((tmp_path / "temp" / "up").exists, timeout=120)
        children = psutil.Process(process.pid).children(recursive=True)
        assert {"postgres", "tansu"} <= {child.name() for child in children}
        process.send_signal(sent)
        process.wait(scaled(30))
        _, alive = psutil.wait_procs(children, timeout=scaled(30))
    finally:
        process.kill()

    assert alive == []


def test_a_kind_of_broker_that_there_is_not(tmp_path: Path) -> None:
    """Named, with what is possible; no traceback."""
    (tmp_path / "test_it.py").write_text(TEST)
    env = {**environment(), "BACKSTAY_TEST_KAFKA": "rabbit"}
    started = time.monotonic()
    done = subprocess.run(
        command(tmp_path, str(tmp_path)), cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 4, (done.stdout, time.monotonic() - started)
    assert "BACKSTAY_TEST_KAFKA is 'rabbit'; it may be apache or embedded" in done.stdout + done.stderr
