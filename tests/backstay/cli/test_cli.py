import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backstay import cli

run = CliRunner()


def test_help_lists_the_commands() -> None:
    """`backstay --help` names every command."""
    result = run.invoke(cli.app(), ["--help"])

    assert result.exit_code == 0
    for command in ("relay", "gateway", "registry", "outbox", "dead-letters"):
        assert command in result.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["outbox", "status", "mysql://x/y"], "no database"),
        (["outbox", "status", "postgresql://u:secret@127.0.0.1:1"], "no database"),
        (["relay", "postgresql://u@127.0.0.1:1/x", "127.0.0.1:1", "--flavor", "redpanda"], "--flavor"),
        (["dead-letters", "replay", "postgresql://u@127.0.0.1:1/x"], "nothing chosen"),
        (["gateway", "nowhere.yml"], "nowhere.yml"),
    ],
)
def test_mistakes_are_told(arguments: list[str], problem: str) -> None:
    """A mistake is one line on standard error and exit status 1, without a trace or a password."""
    result = run.invoke(cli.app(), arguments)

    assert result.exit_code == 1
    assert problem in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.output


def test_gateway_file_with_mistakes(tmp_path: Path) -> None:
    """A file without routes is refused with what is missing."""
    file = tmp_path / "application.yml"
    file.write_text("server: {port: 80}\n")
    result = run.invoke(cli.app(), ["gateway", str(file)])

    assert result.exit_code == 1
    assert "routes" in result.stderr


def test_importing_needs_no_extra() -> None:
    """The module itself imports nothing but the standard library and Backstay's core."""
    code = (
        "import sys, backstay.cli;"
        "print([name for name in ('typer', 'asyncpg', 'confluent_kafka', 'msgspec') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"
