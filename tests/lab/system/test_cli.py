"""The command line: helpful where something is missing or wrong."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NO_SYSTEM = str(Path(__file__).with_name("no-system"))
"""A home where nothing runs, whatever runs from this checkout."""


def shop(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lab", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200", "BACKSTAY_HOME": NO_SYSTEM, **env},
    )


def test_every_command_is_listed() -> None:
    """Help names all of them."""
    output = shop("--help").stdout

    for command in ("up", "down", "status", "logs", "config", "url", "demo", "seed", "replay", "run"):
        assert f" {command} " in output


@pytest.mark.parametrize("command", ["down", "status", "demo", "seed"])
def test_without_a_system_there_is_a_hint(command: str, tmp_path: Path) -> None:
    """Who asks for a running system and has none is told how to get one."""
    answer = shop(command, BACKSTAY_HOME=str(tmp_path))

    assert answer.returncode == 1
    assert f"nothing runs on {tmp_path}: start it with `make up`" in answer.stderr


def test_logs_name_those_there_are(tmp_path: Path) -> None:
    """A log that isn't there is answered with the list; one that is, with its end."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "orders.log").write_text("one\ntwo\nthree\n")

    assert "logs there are: orders" in shop("logs", "order", BACKSTAY_HOME=str(tmp_path)).stderr
    assert shop("logs", "orders", "-n", "2", BACKSTAY_HOME=str(tmp_path)).stdout == "two\nthree\n"


def test_settings_are_shown_without_secrets() -> None:
    """What a service would be told, checked, passwords masked."""
    answer = shop("config", "catalog", DATABASE_URL="postgresql://catalog:hunter2@db/catalog", LOG_LEVEL="debug")

    assert "log_level='debug'" in answer.stdout
    assert "hunter2" not in answer.stdout


def test_wrong_settings_are_told_at_once() -> None:
    """Every wrong variable is named before anything starts."""
    answer = shop("run", "catalog", LOG_LEVEL="loud", HEARTBEAT_INTERVAL="-1")

    assert answer.returncode == 2
    assert "LOG_LEVEL" in answer.stderr
    assert "HEARTBEAT_INTERVAL" in answer.stderr


@pytest.mark.parametrize(
    "service", ["auth", "catalog", "orders", "payments", "inventory", "notifications", "analytics"]
)
def test_missing_settings_are_named_together(service: str) -> None:
    """A service that was told nothing says once what it lacks, with the reason of each."""
    bare = {"DATABASE_URL": "", "KAFKA": "", "TOKEN_ISSUER": "", "JWKS_URL": "", "DISCOVERY_URL": ""}
    answer = shop("run", service, **bare)
    wanted = {"DATABASE_URL", "KAFKA", "TOKEN_ISSUER"} | ({"JWKS_URL"} if service != "auth" else set())
    wanted |= {"DISCOVERY_URL"} if service == "orders" else set()

    assert answer.returncode == 2
    assert wanted <= {line.partition(" is not set")[0].rpartition(" ")[2] for line in answer.stderr.splitlines()}
    assert "Traceback" not in answer.stderr


def test_unknown_services_and_roles_are_refused() -> None:
    """The answer lists those there are."""
    assert "there are: discovery, gateway" in shop("run", "nobody").stderr
    assert "allowed are api, consumer, relay, jobs" in shop("run", "catalog", "--roles", "boss").stderr


def test_wrong_options_stop_before_anything_starts(tmp_path: Path) -> None:
    """`make up` with nonsense leaves no trace."""
    answer = shop("up", BACKSTAY_HOME=str(tmp_path / "home"), KAFKA="somewhere", GATEWAY_PORT="x")

    assert answer.returncode == 2
    assert "KAFKA='somewhere'" in answer.stdout
    assert "GATEWAY_PORT='x'" in answer.stdout
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("command", ["up", "replay", "soak", "healing"])
def test_a_home_that_cannot_be_one_is_a_sentence(command: str, tmp_path: Path) -> None:
    """Every command that starts a system says why it can't, without a traceback."""
    (tmp_path / "file").touch()
    answer = shop(command, BACKSTAY_HOME=str(tmp_path / "file"), GATEWAY_PORT="0", DISCOVERY_PORT="0")

    assert answer.returncode == (2 if command == "up" else 1)
    assert "can't hold a system" in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
