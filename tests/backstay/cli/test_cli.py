import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from backstay import __version__, cli
from backstay.cli import common
from backstay.dev.ports import free_port, is_open
from backstay.http import HttpClient, HttpReply, HttpServer
from backstay.testing import eventually
from backstay.testing.issuer import TokenIssuer

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
        (["relay", "postgresql://u@127.0.0.1:1/x", "127.0.0.1:1", "--table", "x", "--shape", "oracle"], "--shape"),
        (["outbox", "status", "postgresql://u@127.0.0.1:1/x", "--table", "x", "--route", "fixed"], "route"),
        (["dead-letters", "discard", "postgresql://u@127.0.0.1:1/x", "1"], "no reason"),
        (["gateway", "nowhere.yml"], "nowhere.yml"),
    ],
)
def test_mistakes_are_told(arguments: list[str], problem: str) -> None:
    """A mistake is one line on standard error and exit status 2, without a trace or a password."""
    result = run.invoke(cli.app(), arguments)

    assert result.exit_code == 2
    assert problem in result.stderr
    assert "secret" not in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--host", "0.0.0.0"], "--open"),
        (["--private-reads"], "--credentials"),
        (["--credentials", "nowhere.json"], "nowhere.json"),
        (["--credentials", __file__], "registry credentials"),
    ],
)
def test_a_registry_that_would_be_open_to_all_is_refused(arguments: list[str], problem: str) -> None:
    """One line with what to do, and exit status 2."""
    result = run.invoke(cli.app(), ["registry", "--port", "0", *arguments])

    assert result.exit_code == 2
    assert problem in result.stderr
    assert "Traceback" not in result.output


def test_gateway_file_with_mistakes(tmp_path: Path) -> None:
    """A file without routes is refused with what is missing."""
    file = tmp_path / "application.yml"
    file.write_text("server: {port: 80}\n")
    result = run.invoke(cli.app(), ["gateway", str(file)])

    assert result.exit_code == 2
    assert "routes" in result.stderr


def test_gateway_reads_the_circuit_breakers_of_the_same_file(tmp_path: Path) -> None:
    """What `resilience4j` says about a breaker that a route names is read, and a mistake there named."""
    file = tmp_path / "application.yml"
    file.write_text("""
spring.cloud.gateway.routes:
  - {id: hello, uri: "http://127.0.0.1:1", predicates: [Path=/hello], filters: [CircuitBreaker=hello]}
resilience4j.circuitbreaker.instances:
  hello: {failureRateThreshold: 150}
""")
    result = run.invoke(cli.app(), ["gateway", str(file), "--open"])

    assert result.exit_code == 2
    assert "failureRateThreshold" in result.stderr
    assert "(0, 100]" in result.stderr


ROUTES = """
spring.cloud.gateway.routes:
  - {id: hello, uri: "http://127.0.0.1:1", predicates: [Path=/hello], metadata: {public: true}}
  - {id: secret, uri: "http://127.0.0.1:1", predicates: [Path=/secret]}
"""


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [([], "secret"), (["--issuer", "https://who.example"], "--audience"), (["--jwks", "http://x/keys"], "--issuer")],
)
def test_gateway_wants_to_know_whose_tokens_are_good(tmp_path: Path, arguments: list[str], problem: str) -> None:
    """A route that wants a token is no use while nobody is named who signs one: said at start, with the route."""
    file = tmp_path / "application.yml"
    file.write_text(ROUTES)
    result = run.invoke(cli.app(), ["gateway", str(file), *arguments])

    assert result.exit_code == 2
    assert problem in result.stderr


@pytest.mark.parametrize(("is_open_to_all", "without_token"), [(True, 502), (False, 401)])
async def test_gateway_guards_what_is_not_public(tmp_path: Path, is_open_to_all: bool, without_token: int) -> None:
    """Keys come from the issuer's own page; --open asks nobody for a token. Nobody is behind it: 502 is let through."""
    issuer = TokenIssuer(audience="customers")
    file = tmp_path / "application.yml"
    file.write_text(ROUTES)
    async with HttpServer(lambda _: HttpReply(200, issuer.jwks), "127.0.0.1", 0) as keys, HttpClient() as http:
        port = free_port()
        known = [
            "--issuer",
            issuer.issuer,
            "--audience",
            issuer.audience,
            "--jwks",
            f"http://127.0.0.1:{keys.port}/keys",
        ]
        options = ["--port", str(port), *(["--open"] if is_open_to_all else known)]
        argv = [sys.executable, "-m", "backstay.cli", "gateway", str(file), *options]
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.DEVNULL)
        try:
            await eventually(lambda: is_open(port), timeout=60, interval=0.05)
            token = [("authorization", f"Bearer {issuer.token()}")]

            async def ask(path: str, headers: list[tuple[str, str]]) -> int:
                return (await http.request("127.0.0.1", port, "GET", path, headers=headers, timeout=10.0)).status

            assert await ask("/hello", []) == 502
            assert await ask("/secret", []) == without_token

            async def is_let_through() -> bool:  # once the keys are here
                return await ask("/secret", token) == 502

            await eventually(is_let_through, timeout=60, interval=0.05)
        finally:
            process.terminate()
            await process.wait()


async def test_gateway_has_a_management_port_and_an_access_log(tmp_path: Path) -> None:
    """As the gateway of any application: health, metrics, info and routes beside the public port, a line a request."""
    file = tmp_path / "application.yml"
    file.write_text(ROUTES)
    port, management = free_port(), free_port()
    argv = [sys.executable, "-m", "backstay.cli", "gateway", str(file), "--open", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(
        *argv, "--management-port", str(management), "--max-body", "10", stdout=asyncio.subprocess.PIPE
    )
    async with HttpClient() as http:

        async def ask(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, str]:
            answer = await http.request("127.0.0.1", port, method, path, body=body, timeout=10.0)
            return answer.status, answer.body.decode()

        try:
            await eventually(lambda: is_open(management), timeout=60, interval=0.05)
            large = await ask(port, "POST", "/hello", b"x" * 11)
            pages = {path: await ask(management, "GET", path) for path in ("/health/ready", "/metrics", "/info")}
            listed = await ask(management, "GET", "/actuator/gateway/routes")
        finally:
            process.terminate()
            out, _ = await process.communicate()

    assert (process.returncode, large[0]) == (0, 413)
    assert [status for status, _ in pages.values()] == [200, 200, 200]
    assert 'backstay_gateway_requests_total{route="' in pages["/metrics"][1]
    assert json.loads(pages["/info"][1]) == {"name": "gateway", "backstay": __version__, "routes": 2}
    assert {route["route_id"] for route in json.loads(listed[1])} == {"hello", "secret"}
    lines = [json.loads(line) for line in out.decode().splitlines()]
    assert [line["status"] for line in lines if line.get("path") == "/hello"] == [413]
    assert [line["event"] for line in lines if line["event"] != "gateway.request"] == [
        "gateway.started",
        "gateway.stopping",
        "gateway.stopped",
    ]


def test_all_mistakes_of_a_server_are_named_at_once(tmp_path: Path) -> None:
    """Options by their flags, variables by their names, and what is missing with both ways to give it."""
    file = tmp_path / "application.yml"
    file.write_text(ROUTES)
    answer = backstay("gateway", str(file), "--max-body", "none", "--audience", "api", RESPONSE_TIMEOUT="0")

    assert answer.returncode == 2
    assert [line.split(":")[0] for line in answer.stderr.removeprefix("backstay: ").splitlines()] == [
        "--max-body 'none'",
        "RESPONSE_TIMEOUT='0'",
        "--issuer (or the variable TOKEN_ISSUER) is not set",
        "--jwks (or the variable JWKS_URL) is not set",
    ]


@pytest.mark.parametrize("words", [["outbox", "status"], ["outbox", "park", "orders", "1"], ["dead-letters", "list"]])
def test_a_missing_database_is_named_with_both_ways_to_give_it(words: list[str]) -> None:
    """The first argument, or DATABASE_URL."""
    answer = backstay(*words, DATABASE_URL="")

    assert answer.returncode == 2
    assert answer.stderr.startswith(f"backstay: `backstay {' '.join(words[:2])}` needs a database")
    assert "DATABASE_URL" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


def test_a_relay_names_both_ways_to_give_its_addresses() -> None:
    """Arguments, or DATABASE_URL and KAFKA; both in one report."""
    answer = backstay("relay", DATABASE_URL="", KAFKA="")

    assert answer.returncode == 2
    assert answer.stderr.splitlines() == [
        "backstay: the argument DSN (or the variable DATABASE_URL) is not set: name the database whose outbox is to be "
        "published",
        "the argument KAFKA (or the variable KAFKA) is not set: name host:port of the broker",
    ]


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("gateway", ("--max-clients", "--address-rate", "--revocations-topic", "--heartbeat-interval")),
        ("registry", ("--max-leases", "--eviction-interval", "--access-log", "--log-level")),
        ("relay", ("--batch-rows", "--window-bytes", "--management-port", "--kafka-security-protocol")),
    ],
)
def test_every_setting_of_a_server_is_an_option(command: str, wanted: tuple[str, ...]) -> None:
    """Each limit can be given on the line; secrets can't."""
    answer = backstay(command, "--help")

    assert answer.returncode == 0
    assert [flag for flag in wanted if flag not in answer.stdout] == []
    assert not any(flag in answer.stdout for flag in ("--kafka-sasl-password", "--kafka-options"))


def test_importing_needs_no_extra() -> None:
    """The module itself imports nothing but the standard library and Backstay's core."""
    code = (
        "import sys, backstay.cli;"
        "print([name for name in ('typer', 'asyncpg', 'confluent_kafka', 'msgspec') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == "[]"


def backstay(*words: str, hidden: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own; `hidden` is a module that isn't installed for it."""
    code = f"import sys; sys.modules.update(dict.fromkeys({hidden.split()}))\nfrom backstay.cli import main\nmain()"
    argv = [sys.executable, "-c", code, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "200", **env})


DSN = "postgresql://u:secret@127.0.0.1:1/x"
REVOKING = ["--revocations-topic=sessions", "--kafka=127.0.0.1:1"]


@pytest.mark.parametrize(
    ("hidden", "words", "extra"),
    [
        ("typer", ["registry"], "cli"),
        ("asyncpg", ["outbox", "status", DSN], "outbox"),
        ("asyncpg", ["dead-letters", "list", DSN], "messaging"),
        ("confluent_kafka", ["relay", DSN, "127.0.0.1:1"], "outbox"),
        ("httptools", ["registry"], "discovery"),
        ("yaml", ["gateway", "application.yml"], "gateway"),
        ("asyncpg", ["gateway", "application.yml", "--open", "--port=0", *REVOKING], "messaging"),
    ],
)
def test_a_command_without_its_extra_names_it(hidden: str, words: list[str], extra: str, tmp_path: Path) -> None:
    """One sentence with the command that installs it, and exit status 2."""
    (tmp_path / "application.yml").write_text(ROUTES)
    words = [str(tmp_path / word) if word.endswith(".yml") else word for word in words]
    answer = backstay(*words, hidden=hidden)

    assert answer.returncode == 2
    assert f"pip install 'backstay[{extra}]'" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("server", ["gateway", "registry"])
def test_an_address_that_cannot_be_had_is_one_sentence(server: str, tmp_path: Path) -> None:
    """A taken port and an unknown host end a server with exit status 2, and no traceback."""
    file = tmp_path / "application.yml"
    file.write_text(ROUTES)
    words = [server, *([str(file)] if server == "gateway" else []), "--open"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answers = [backstay(*words, "--port", port), backstay(*words, "--host", "nowhere.invalid")]

    assert [answer.returncode for answer in answers] == [2, 2]
    assert f"port {port} of 127.0.0.1 is taken" in answers[0].stderr
    assert "--host 'nowhere.invalid' is unknown" in answers[1].stderr
    assert all(len(answer.stderr.splitlines()) == 1 for answer in answers)


@pytest.mark.parametrize("server", ["gateway", "registry"])
@pytest.mark.parametrize("port", ["99999", "65536", "-1"])
def test_a_port_that_there_isnt_is_refused(server: str, port: str, tmp_path: Path) -> None:
    """The system would take the rest of a division by 65536, and serve on a port that nobody named."""
    file = tmp_path / "application.yml"
    file.write_text(ROUTES)
    answer = backstay(server, *([str(file)] if server == "gateway" else []), "--open", f"--port={port}")

    assert answer.returncode == 2
    assert answer.stderr.startswith(f"backstay: --port '{port}': must be int ≥ 0 and ≤ 65535")
    assert len(answer.stderr.splitlines()) == 1


def test_a_server_that_never_answers_ends_a_command() -> None:
    """What accepts a connection and says nothing isn't waited for half a minute."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        port = silent.getsockname()[1]
        answer = backstay("outbox", "status", f"postgresql://u:secret@127.0.0.1:{port}/x")

    assert answer.returncode == 2
    assert "secret" not in answer.stderr
    assert answer.stderr.startswith("backstay: the database")
    assert len(answer.stderr.splitlines()) == 1


def test_a_file_of_credentials_is_named(tmp_path: Path) -> None:
    """Which file or variable is wrong, and how."""
    file = tmp_path / "users.json"
    file.write_text("[{")
    answers = [backstay("registry", "--credentials", str(each)) for each in (file, tmp_path)]
    answers.append(backstay("registry", REGISTRY_CREDENTIALS="["))

    assert [answer.returncode for answer in answers] == [2, 2, 2]
    assert answers[0].stderr.startswith(f"backstay: --credentials {file}: ")
    assert answers[1].stderr == f"backstay: --credentials {tmp_path}: Is a directory\n"
    assert answers[2].stderr.startswith("backstay: REGISTRY_CREDENTIALS: ")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["relay", "garbage", "127.0.0.1:1"], "'garbage' is no database"),
        (["outbox", "status", "postgresql://u:secret@nowhere.invalid/x"], "host 'nowhere.invalid' is unknown"),
        (["outbox", "status", DSN], "127.0.0.1:1 can't be reached"),
        (["dead-letters", "list", DSN], "127.0.0.1:1 can't be reached"),
        (["relay", "postgresql://u:secret@nowhere.invalid/x", "127.0.0.1:1"], "host 'nowhere.invalid' is unknown"),
        (["relay", DSN, "nowhere.invalid:9092"], "host 'nowhere.invalid' is unknown"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_sentence(words: list[str], problem: str) -> None:
    """Commands don't wait for a host that nobody knows, and an operator's don't wait for a database either."""
    answer = backstay(*words)

    assert answer.returncode == 2
    assert problem in answer.stderr
    assert "secret" not in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "words", [["outbox", "status"], ["outbox", "park", "orders", "1"], ["dead-letters", "list"], ["relay"]]
)
def test_addresses_come_from_the_environment_too(words: list[str]) -> None:
    """No password has to be an argument, which every user of the machine can read."""
    answer = backstay(*words, DATABASE_URL="postgresql://u:secret@nowhere.invalid/x", KAFKA="127.0.0.1:1")

    assert answer.returncode == 2
    assert "host 'nowhere.invalid' is unknown" in answer.stderr


def test_the_command_line_precedes_the_environment() -> None:
    """What is given is taken; only what is missing is filled in."""
    environ = {"DATABASE_URL": "postgresql://env/x", "KAFKA": "env:1"}

    assert common.completed(["relay", "postgresql://a/x", "b:1"], environ) == ["relay", "postgresql://a/x", "b:1"]
    assert common.completed(["relay", "kafka://b:1", "--wal"], environ) == [
        "relay",
        "postgresql://env/x",
        "kafka://b:1",
        "--wal",
    ]
    assert common.completed(["relay", "postgresql://a/x"], environ) == ["relay", "postgresql://a/x", "env:1"]
    assert common.completed(["registry", "--port", "1"], environ) == ["registry", "--port", "1"]
    assert common.completed([], environ) == []
