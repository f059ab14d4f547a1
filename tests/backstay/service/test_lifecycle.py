"""How a service starts and stops: in order, with its roles, known to the registry only when it can work."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backstay import tasks
from backstay.db import Database
from backstay.discovery import EurekaClient, NoInstance, RegistryServer
from backstay.errors import ConfigError
from backstay.runtime.jobs import Job
from backstay.service import Check, IdempotencyKey, Service, ServiceSettings, client, every, get, post
from backstay.testing import eventually
from backstay.testing.api import Api

QUIET = ServiceSettings(log_level="error", heartbeat_interval=1.0, lease_duration=3.0, fetch_interval=0.2)


class Part:
    """Something owned that writes down when it comes and goes."""

    def __init__(self, name: str, diary: list[str], fails: str = "") -> None:
        self.name = name
        self._diary = diary
        self._fails = fails

    async def __aenter__(self) -> "Part":
        if self._fails == "start":
            raise ConfigError(f"{self.name} can't start")
        self._diary.append(f"+{self.name}")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._diary.append(f"-{self.name}")
        if self._fails == "stop":
            raise RuntimeError(self.name)


@get("/hello", public=True)
async def hello() -> str:
    """Say hello."""
    return "hello"


async def test_order() -> None:
    """What is owned is entered in order and left in reverse."""
    diary: list[str] = []
    service = Service("a", routes=[hello], owns=[Part("db", diary), Part("relay", diary)], settings=QUIET)
    async with service.running() as it, Api(it.port) as api:
        assert (await api.ask("GET", "/hello")).json == "hello"
        diary.append("serving")

    assert diary == ["+db", "+relay", "serving", "-relay", "-db"]


async def test_failed_start_undoes_what_was_done() -> None:
    """If a part can't start, those before it are left, and the error is told."""
    diary: list[str] = []
    service = Service("a", owns=[Part("db", diary), Part("relay", diary, fails="start")], settings=QUIET)

    with pytest.raises(ConfigError, match="relay can't start"):
        async with service.running():
            pass
    assert diary == ["+db", "-db"]


async def test_failed_stop_stops_the_rest() -> None:
    """A part that fails while stopping doesn't keep the others from stopping."""
    diary: list[str] = []
    service = Service("a", owns=[Part("db", diary), Part("relay", diary, fails="stop")], settings=QUIET)
    async with service.running():
        pass

    assert diary == ["+db", "+relay", "-relay", "-db"]


async def test_jobs_run_by_role() -> None:
    """Jobs run in a process that has the role, and nowhere else."""
    runs: list[str] = []
    service = Service("a", jobs=[every(0.01, lambda: _note(runs), name="note")], settings=QUIET)
    async with service.running(["api"]):
        await asyncio.sleep(0.05)
    assert runs == []
    async with service.running(["jobs"]):
        await eventually(lambda: len(runs) >= 2)


async def _note(runs: list[str]) -> None:
    runs.append("run")


async def test_owned_parts_by_role() -> None:
    """A part that says its role is entered where the role is, one that says none everywhere."""
    diary: list[str] = []
    reader = Part("reader", diary)
    reader.role = "consumer"  # type: ignore[attr-defined]
    service = Service("a", owns=[Part("db", diary), reader], settings=QUIET)
    for roles in (["api"], ["consumer"]):
        async with service.running(roles):
            diary.append(roles[0])

    assert diary == ["+db", "api", "-db", "+db", "+reader", "consumer", "-reader", "-db"]


async def test_routes_by_role() -> None:
    """Without the role api only health, metrics and info answer."""
    service = Service("a", routes=[hello], settings=QUIET)
    async with service.running(["jobs"]) as it, Api(it.port) as api:
        assert [(await api.ask("GET", path)).status for path in ("/hello", "/health/live", "/info")] == [404, 200, 200]
        assert (await api.ask("GET", "/info")).json["roles"] == ["jobs"]


async def test_unknown_role() -> None:
    """A role that doesn't exist is refused."""
    with pytest.raises(ConfigError, match="cook"):
        await Service("a", settings=QUIET).serve(["cook"])


async def test_requests_in_flight_are_finished() -> None:
    """A stop waits for the answers that are owed, and accepts nothing new."""
    arrived, go = asyncio.Event(), asyncio.Event()

    @get("/slow", public=True)
    async def slow() -> str:
        arrived.set()
        await go.wait()
        return "done"

    service = Service("a", routes=[slow], settings=QUIET)
    async with Api(0) as api:
        async with service.running() as it:
            api.port = it.port
            owed = asyncio.create_task(api.ask("GET", "/slow"))
            await arrived.wait()
            asyncio.get_running_loop().call_later(0.2, go.set)
        assert (await owed).json == "done"
        with pytest.raises(ConnectionError):
            await api.ask("GET", "/slow")


async def test_taken_port() -> None:
    """A port that is taken is told with its number."""
    async with Service("a", settings=QUIET).running() as it:
        with pytest.raises(ConfigError, match=f"PORT={it.port}"):
            async with Service("b", settings=ServiceSettings(port=it.port)).running():
                pass


async def test_what_is_missing_is_reported_before_anything_is_bound() -> None:
    """A taken port hides no missing setting, and nothing is contacted with settings that are refused."""

    @get("/mine")
    async def mine() -> str:
        """Only with a token."""
        return "mine"

    async with Service("a", routes=[hello], settings=QUIET).running() as it:
        settings = ServiceSettings(log_level="error", port=it.port, discovery_url="http://127.0.0.1:1/eureka")
        with pytest.raises(ConfigError) as refused:
            async with Service("b", routes=[mine], owns=[Database("b")], settings=settings).running():
                pass

    wanted = ["DATABASE_URL", "TOKEN_ISSUER", "TOKEN_AUDIENCE", "JWKS_URL"]
    assert [problem.split()[0] for problem in refused.value.problems] == wanted


async def test_what_must_be_set() -> None:
    """Routes that need a token need an issuer; a client by name needs a registry; keys need a database."""

    @get("/mine")
    async def mine() -> str:
        return "mine"

    @post("/keyed", public=True)
    async def keyed(key: IdempotencyKey) -> None: ...

    with pytest.raises(ConfigError, match="TOKEN_ISSUER"):
        async with Service("a", routes=[mine], settings=QUIET).running():
            pass
    with pytest.raises(ConfigError, match="DISCOVERY_URL"):
        async with Service("a", owns=[client("lb://b")], settings=QUIET).running():
            pass
    with pytest.raises(ConfigError, match="POST /keyed takes an idempotency key"):
        Service("a", routes=[keyed], settings=QUIET)


async def test_same_route_twice() -> None:
    """Two routes for one method and path are a mistake that is told."""
    with pytest.raises(ConfigError, match="GET /hello"):
        async with Service("a", routes=[hello, hello], settings=QUIET).running():
            pass


async def test_database_is_wired_and_ready(database: str) -> None:
    """A database gets its address from the settings, its tables from what routes need, and readiness asks it."""

    @post("/keyed", public=True)
    async def keyed(key: IdempotencyKey) -> int:
        return int(await db.fetchval("SELECT count(*) FROM idempotency_keys"))

    db = Database("things")
    settings = ServiceSettings.read({"DATABASE_URL": database, "LOG_LEVEL": "error"})
    service = Service("things", routes=[keyed], owns=[db], settings=settings)
    async with service.running() as it, Api(it.port) as api:
        assert (await api.ask("POST", "/keyed", key="k")).json == 0
        assert (await api.ask("POST", "/keyed")).slug == "idempotency-key-missing"
        assert (await api.ask("GET", "/health/ready")).json["checks"] == {"database": {"status": "UP"}}
        assert b"backstay_database_pool_" in (await api.ask("GET", "/metrics")).body
    assert [job.name for job in service.jobs] == ["prune-idempotency-keys"]


async def test_troubles_are_told_and_keep_nobody_away() -> None:
    """A relay or consumer that can't do its work is named with its reason in the health, and the service is ready."""
    service = Service("a", owns=[relay := Troubled()], settings=QUIET)
    async with service.running() as it, Api(it.port) as api:
        assert "troubles" not in (await api.ask("GET", "/health/ready")).json
        relay.problem = "topic 'orders' can't be published to"
        answer = await api.ask("GET", "/health/ready")

    assert (answer.status, answer.json["status"]) == (200, "UP")
    assert answer.json["troubles"] == {"troubled-orders": "topic 'orders' can't be published to"}


async def test_membership_of_groups_is_a_setting() -> None:
    """Static membership and KIP-848 come from the environment, and what the demo's broker can't do is refused."""
    environment = {
        "KAFKA": "127.0.0.1:1",
        "KAFKA_GROUP_PROTOCOL": "consumer",
        "KAFKA_INSTANCE": "orders-1",
        "LOG_LEVEL": "error",
    }
    part = Troubled()
    async with Service("a", owns=[part], settings=ServiceSettings.read(environment)).running():
        settings = part.broker._settings
    assert (settings.protocol, settings.instance) == ("consumer", "orders-1")
    with pytest.raises(ConfigError, match="use Apache Kafka"):
        async with Service(
            "a", owns=[part], settings=ServiceSettings.read(environment | {"KAFKA_FLAVOR": "embedded"})
        ).running():
            pass


class Troubled:
    """A part with a relay's role and manners."""

    role, name = "relay", "orders"

    def __init__(self) -> None:
        self.problem: str | None = None
        self.broker: Any = None

    def use_broker(self, broker: Any) -> None:
        self.broker = broker

    async def __aenter__(self) -> "Troubled":
        return self

    async def __aexit__(self, *_: object) -> None: ...


@pytest.fixture
async def discovery_url() -> AsyncIterator[str]:
    async with RegistryServer("127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.port}/eureka"


@asynccontextmanager
async def looking(url: str) -> AsyncIterator[EurekaClient]:
    async with EurekaClient(url, fetch=0.1) as registry:
        yield registry


async def test_registry_entry_follows_readiness(discovery_url: str) -> None:
    """STARTING while something is missing, UP once nothing is, DOWN while it is missing again, gone after the stop."""
    missing: list[str] = ["the copy"]

    async def check() -> str | None:
        return missing[0] if missing else None

    pace = {"HEARTBEAT_INTERVAL": "0.2", "FETCH_INTERVAL": "0.2", "LOG_LEVEL": "error"}
    settings = ServiceSettings.read({"DISCOVERY_URL": discovery_url, **pace})
    service = Service("beans", routes=[hello], ready=[Check("copy", check)], settings=settings)

    def status(registry: EurekaClient) -> str | None:
        known = registry.instances("beans")
        return known[0].status if known else None

    async with looking(discovery_url) as registry:
        async with service.running() as it, Api(it.port) as api:
            await eventually(lambda: status(registry) == "STARTING")
            assert (await api.ask("GET", "/health/ready")).json["checks"]["copy"]["missing"] == "the copy"
            missing.clear()
            await eventually(lambda: status(registry) == "UP")
            assert registry.choose("beans").port == it.port
            missing.append("the copy")
            await eventually(lambda: status(registry) == "DOWN")
            missing.clear()
            await eventually(lambda: status(registry) == "UP")
        await eventually(lambda: status(registry) is None)


async def test_failed_telling_is_repeated(discovery_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readiness that couldn't be told to the registry is told again."""
    missing: list[str] = ["the copy"]
    told: list[str] = []
    really = EurekaClient.set_status

    async def check() -> str | None:
        return missing[0] if missing else None

    async def tell(eureka: EurekaClient, status: str) -> None:
        told.append(status)
        if len(told) == 1:
            raise RuntimeError("not told")
        await really(eureka, status)

    monkeypatch.setattr(EurekaClient, "set_status", tell)
    monkeypatch.setattr(tasks, "RESTART", tasks.Backoff(first=0.01, cap=0.01))
    settings = ServiceSettings.read({"DISCOVERY_URL": discovery_url, "LOG_LEVEL": "error"})
    service = Service("beans", routes=[hello], ready=[Check("copy", check)], settings=settings)
    async with service.running():
        missing.clear()
        await eventually(lambda: told == ["UP", "UP"])


async def test_task_that_ends_is_begun_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A background task that breaks or returns is logged with its name, and begun again."""
    begun: list[str] = []

    async def run(job: Job) -> None:
        begun.append(job.name)
        if len(begun) == 1:
            raise RuntimeError("broken")
        if len(begun) > 2:
            await asyncio.Event().wait()

    monkeypatch.setattr(Job, "run", run)
    monkeypatch.setattr(tasks, "RESTART", tasks.Backoff(first=0.01, cap=0.01))
    service = Service("a", jobs=[every(60, lambda: _note([]), name="note")], settings=QUIET)
    async with service.running(["jobs"]):
        await eventually(lambda: len(begun) == 3)

    ended = [vars(record) for record in caplog.records if record.name == "backstay.tasks"]
    assert [(one["msg"], one["task"], one["error"]) for one in ended] == [
        ("tasks.task_ended", "job note", "RuntimeError: broken"),
        ("tasks.task_ended", "job note", "it returned"),
    ]


async def test_process_without_api_is_not_registered(discovery_url: str) -> None:
    """Who answers no requests is not in the list of those who do."""
    settings = ServiceSettings.read({"DISCOVERY_URL": discovery_url, "LOG_LEVEL": "error"})
    async with looking(discovery_url) as registry, Service("beans", settings=settings).running(["relay"]):
        await asyncio.sleep(0.3)
        with pytest.raises(NoInstance):
            registry.choose("beans")


async def test_call_between_services(discovery_url: str) -> None:
    """One service finds another by the registry."""
    settings = ServiceSettings.read({"DISCOVERY_URL": discovery_url, "FETCH_INTERVAL": "0.1", "LOG_LEVEL": "error"})
    beans = client("lb://beans")

    async def ask() -> Any:
        return await beans.get("/hello", str)

    async with (
        Service("beans", routes=[hello], settings=settings).running(),
        Service("coffee", owns=[beans], settings=settings).running(),
    ):
        assert await eventually(ask) == "hello"


PROGRAM = """
import asyncio
from backstay.service import Service, get

class Part:
    async def __aenter__(self): print("entered", flush=True)
    async def __aexit__(self, *_): print("left", flush=True)

@get("/slow", public=True)
async def slow() -> str:
    print("asked", flush=True)
    await asyncio.sleep({seconds})
    return "done"

{extra}
Service("prog", routes=[slow], owns=[Part()]).run()
"""


class Program:
    """A service in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.port = 0

    async def line(self, beginning: str) -> str:
        """The next line that contains the text."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            while line := (await self.process.stdout.readline()).decode():
                if beginning in line:
                    return line
        raise AssertionError(f"{beginning!r} was never said")

    async def started(self) -> None:
        line = await self.line("service.started")
        self.port = int(line.partition("127.0.0.1:")[2].partition('"')[0])

    async def ended(self) -> int:
        async with asyncio.timeout(20):
            return await self.process.wait()


@asynccontextmanager
async def program(tmp_path: Path, *, seconds: float = 0.3, extra: str = "", **environ: str) -> AsyncIterator[Program]:
    file = tmp_path / "prog.py"
    file.write_text(PROGRAM.format(seconds=seconds, extra=extra))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(file),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PORT": "0", **environ},
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_signal_drains(tmp_path: Path, number: signal.Signals) -> None:
    """At a signal the answer that is owed is sent, everything is left, and the exit status is 0."""
    async with program(tmp_path) as it:
        await it.started()
        async with Api(it.port) as api:
            owed = asyncio.create_task(api.ask("GET", "/slow"))
            await it.line("asked")
            it.process.send_signal(number)
            assert (await owed).json == "done"
        await it.line("left")
        await it.line("service.stopped")
        assert await it.ended() == 0


async def test_second_signal_hurries(tmp_path: Path) -> None:
    """A second signal waits for no request: it is cancelled before what it uses is left."""
    async with program(tmp_path, seconds=60) as it:
        await it.started()
        async with Api(it.port) as api:
            owed = asyncio.create_task(api.ask("GET", "/slow"))
            await it.line("asked")
            it.process.terminate()
            await it.line("service.stopping")
            it.process.terminate()
            await it.line("left")
            assert await it.ended() == 0
            assert (await owed).status == 500


async def test_signal_while_starting(tmp_path: Path) -> None:
    """A signal during the start ends it."""
    extra = "\nasync def wait(self): print('waiting', flush=True); await asyncio.sleep(60)\nPart.__aenter__ = wait\n"
    async with program(tmp_path, extra=extra) as it:
        await it.line("waiting")
        it.process.terminate()
        assert await it.ended() == 0


async def test_settings_that_are_wrong(tmp_path: Path) -> None:
    """A program that can't start says why in words, one mistake a line, and leaves with status 2."""
    async with program(tmp_path, PORT="many", LOG_FORMAT="xml") as it:
        out, err = await it.process.communicate()
        told = err.decode()

        assert it.process.returncode == 2
        assert "PORT='many'" in told
        assert "one of json, console" in told
        assert "Traceback" not in told + out.decode()
