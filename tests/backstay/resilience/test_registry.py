"""Registry, the reader of resilience4j.* keys, metrics, health and the actuator application."""

import asyncio
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import backstay.resilience as r
from backstay.errors import ConfigError
from backstay.resilience import actuator, meters, spring_config
from backstay.resilience.java_errors import JavaIOException
from backstay.testing import FakeClock, eventually


class Boom(Exception):
    pass


YAML = """
resilience4j:
  circuitbreaker:
    tags: {team: checkout}
    configs:
      default:
        slidingWindowSize: 20
        minimumNumberOfCalls: 5
      shared:
        failure-rate-threshold: 30
        record-failure-predicate: com.acme.IsTransient
    instances:
      payments:
        baseConfig: shared
        slidingWindowType: time-based
        slidingWindowSize: 60
        slowCallDurationThreshold: PT2.5S
        slowCallRateThreshold: 80
        waitDurationInOpenState: ${OPEN_FOR:7s}
        enableExponentialBackoff: true
        exponentialBackoffMultiplier: 2
        exponentialMaxWaitDurationInOpenState: 20s
        permittedNumberOfCallsInHalfOpenState: 3
        maxWaitDurationInHalfOpenState: 1m
        recordExceptions: [java.io.IOException, com.acme.Declined]
        ignoreExceptions: ValueError
        tags: {tier: gold}
      mail: {}
  retry:
    instances:
      payments: {maxAttempts: 4, waitDuration: 500, enableExponentialBackoff: true, budgetRatio: 0.2}
  bulkhead:
    instances:
      payments: {maxConcurrentCalls: 7, maxWaitDuration: 10ms}
  thread-pool-bulkhead:
    instances:
      files: {maxThreadPoolSize: 2, queueCapacity: 3}
  ratelimiter:
    instances:
      payments: {limitForPeriod: 9, limitRefreshPeriod: 1s, timeoutDuration: 0}
  timelimiter:
    instances:
      payments: {timeoutDuration: 1500ms}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "resilience.yaml"
    path.write_text(YAML)
    return path


def registry(file: Path, **environ: str) -> r.Registry:
    return r.Registry.from_yaml(
        file,
        environ=environ,
        errors={"com.acme.Declined": Boom},
        functions={"com.acme.IsTransient": lambda error: True},
    )


def test_a_spring_file_is_read(file: Path) -> None:
    """Base configs, defaults, both spellings, every form of duration, classes by table, placeholders."""
    config = registry(file).circuit_breaker("payments").config

    assert config.window == r.last(seconds=60)
    assert config.failure_rate == 30
    assert config.slow == r.over(2.5, rate=80)
    assert [config.wait(attempt) for attempt in (1, 2, 3)] == [7, 14, 20]
    assert config.half_open == r.probes(3, max_wait=60)
    assert config.record == (JavaIOException, Boom)
    assert config.ignore == (ValueError,)
    assert config.record_if is None, "types given in an instance discard its base's predicate"
    assert config.min_calls == 100, "a base config replaces the default one"
    assert registry(file, OPEN_FOR="PT3S").circuit_breaker("payments").config.wait(1) == 3
    assert registry(file).circuit_breaker("mail").config.window == r.last(20)
    assert registry(file).circuit_breaker("anything else").config.min_calls == 5


def test_its_pipeline_has_all_layers_in_order(file: Path) -> None:
    """What a name configures becomes one pipeline, in the order that serves a remote call."""
    found = registry(file)
    pipe = found.pipeline("payments")

    assert [type(layer).__name__ for layer in pipe.layers] == [
        "Retry",
        "CircuitBreaker",
        "RateLimiter",
        "Bulkhead",
        "TimeLimiter",
    ]
    assert pipe.breaker is found.circuit_breaker("payments")
    assert found.retry("payments").budget is not None
    assert found.tags(found.circuit_breaker("payments")) == {"team": "checkout", "tier": "gold"}
    with pytest.raises(ConfigError, match="nothing is configured for 'mial'; there are: files, mail, payments"):
        found.pipeline("mial")


CB = "circuitbreaker: {instances: {x: {"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            "circuitbreaker: {instances: {x: {failureRateThreshold: 101}}}",
            r"x\.failureRateThreshold: 101 is not a number in \(0, 100\]",
        ),
        (CB + "failureRate: 50}}}", "x.failureRate: unknown; allowed are"),
        (CB + "waitDurationInOpenState: soon}}}", "'soon' is not a duration such as"),
        (CB + "baseConfig: x}}}", "'x' is its own name"),
        (CB + "baseConfig: y}}}", "'y' isn't among the configs: none"),
        (CB + "slidingWindowType: ROUND}}}", "none of COUNT_BASED, TIME_BASED"),
        (
            "circuitbreaker: {instances: {x: {recordExceptions: [a.B]}}}",
            r"names 'a\.B', which is not a known exception",
        ),
        (CB + "recordFailurePredicate: a.B}}}", "is not a known function"),
        (
            CB + "enableExponentialBackoff: true, enableRandomizedWait: true}}}",
            "excludes enableExponentialBackoff",
        ),
        ("retry: {instances: {x: {maxAttempts: 0}}}", "0 is not a whole number of at least 1"),
        ("retry: {instances: {x: {failAfterMaxAttempts: maybe}}}", "'maybe' is not true or false"),
        ("timelimiter: {instances: {x: {cancelRunningFuture: false}}}", "isn't possible here"),
        ("hedge: {instances: {x: {}}}", "resilience4j.hedge: unknown; there are: circuitbreaker"),
        ("retry: {instances: {x: {maxAttempts: '${TRIES}'}}}", "TRIES"),
        ("retry: [1]", "is not a mapping with configs and instances"),
    ],
)
def test_mistakes_name_file_key_and_what_is_allowed(tmp_path: Path, wrong: str, said: str) -> None:
    """Each mistake says where it is and what would be right."""
    path = tmp_path / "wrong.yaml"
    path.write_text(f"resilience4j:\n  {wrong}\n")
    with pytest.raises(ConfigError, match=said) as error:
        r.Registry.from_yaml(path, environ={})

    assert all(problem.startswith(f"{path}: ") for problem in error.value.problems)


def test_all_mistakes_come_at_once() -> None:
    """Whoever has three mistakes hears of three; a missing file is one."""
    text = "resilience4j: {bulkhead: {instances: {x: {maxConcurrentCalls: -1, maxWaitDuration: x, z: 1}}}}"
    with pytest.raises(ConfigError) as error:
        spring_config.read(text)

    assert len(error.value.problems) == 3

    with pytest.raises(ConfigError, match="can't be read"):
        r.Registry.from_yaml("/nowhere/resilience.yaml")


def test_entries_are_shared_and_told() -> None:
    """The same name is the same policy; coming, going and replacing are told."""
    found, heard = r.Registry(), []
    for event in (r.EntryAdded, r.EntryRemoved, r.EntryReplaced):
        found.on(event, lambda event: heard.append(type(event).__name__))
    first = found.circuit_breaker("x", failure_rate=10)

    assert found.circuit_breaker("x", failure_rate=20) is first

    second = found.add(r.CircuitBreaker("x"))
    found.remove(second)

    assert heard == ["EntryAdded", "EntryReplaced", "EntryRemoved"]
    assert list(found) == []
    with pytest.raises(ConfigError, match="unknown kind 'hedge'"):
        r.Registry({"hedge": {}})


def test_keyed_breakers_are_forgotten_when_idle_and_clean() -> None:
    """A breaker for each key; idle ones go, but not one that holds a failure."""
    clock = FakeClock()
    found = r.Registry(clock=clock)
    by_host = found.keyed("http", idle=60, min_calls=2)
    by_host["clean"].permit().success()
    by_host["failed"].permit().failure(Boom())
    clock.advance(30)

    assert by_host["busy"] is by_host["busy"]

    clock.advance(61)
    failed = by_host["failed"]
    clock.advance(61)
    _ = by_host["new"]

    assert {breaker.name for breaker in found.breakers()} == {"http:failed", "http:new"}
    assert by_host["failed"] is failed


async def test_metrics_have_micrometers_names() -> None:
    """Families, labels and numbers as an existing Grafana dashboard asks for them."""
    guard, retry = r.CircuitBreaker('pay"x', min_calls=2), r.Retry(2, wait=0, name="pay")
    timers = r.Timers()
    timers.listen(guard)
    await r.pipeline(retry, guard).call(asyncio.sleep, 0)
    guard.force_open()
    with pytest.raises(r.CallNotPermitted):
        await guard.call(asyncio.sleep, 0)
    policies = [guard, retry, r.Bulkhead(3), r.RateLimiter(5), r.TimeLimiter(1), r.ThreadPoolBulkhead(2), object()]
    text = meters.exposition(policies, tags=lambda policy: {"team": "a"}, timers=timers)
    found = {
        (sample.name, sample.labels.get("kind") or sample.labels.get("state")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels["team"] == "a"
    }

    assert found["resilience4j_circuitbreaker_state", "forced_open"] == 1
    assert found["resilience4j_circuitbreaker_state", "closed"] == 0
    assert found["resilience4j_circuitbreaker_calls_seconds_count", "successful"] == 1
    assert ("resilience4j_circuitbreaker_calls_seconds_sum", "successful") in found
    assert found["resilience4j_circuitbreaker_not_permitted_calls_total", "not_permitted"] == 1
    assert found["resilience4j_retry_calls_total", "successful_without_retry"] == 1
    assert found["resilience4j_bulkhead_max_allowed_concurrent_calls", None] == 3
    assert found["resilience4j_ratelimiter_available_permissions", None] == 5
    assert found["resilience4j_bulkhead_queue_capacity", None] == 100
    assert found["resilience4j_timelimiter_calls_total", "timeout"] == 0
    assert found["resilience4j_timelimiter_calls_total", "deadline"] == 0

    timers.close()
    assert not guard.machine.publisher.has_listeners


class Busy(r.Retry):
    """A retry that has retried for long."""

    def __init__(self, name: str) -> None:
        super().__init__(2, name=name)

    def statistics(self) -> Any:
        return dataclasses.replace(super().statistics(), failed_with_retry=123_456_789)


def test_metrics_have_full_digits_and_legal_labels() -> None:
    """Millions are shown to the last call; tags become legal names and never take the place of a label."""
    text = meters.exposition(
        [Busy("pay"), Busy("pay"), Busy("pay-2")],
        tags=lambda policy: {"team.name": "a", "1st": "b", "name": "no", "kind": "no"},
    )

    labels = 'team_name="a",m_1st="b",name="pay",kind="failed_with_retry"'
    assert f"resilience4j_retry_calls_total{{{labels}}} 123456789" in text
    names = {sample.labels["name"] for family in text_string_to_metric_families(text) for sample in family.samples}
    assert names == {"pay", "pay-2", "pay-2-2"}


def test_health_speaks_resilience4js_words() -> None:
    """An open breaker doesn't make the service DOWN unless it may."""
    guard = r.CircuitBreaker("x")
    guard.transition_to(r.State.OPEN)

    assert r.health([guard])["status"] == "UP"
    assert r.health([guard])["components"]["x"]["status"] == "CIRCUIT_OPEN"
    assert r.health([guard], may_fail=True)["status"] == "DOWN"
    assert r.health([r.RateLimiter(1, name="rate")])["components"]["rate"]["status"] == "UP"


# -- the actuator application -----------------------------------------------------------------------------------------


async def ask(app: r.Actuator, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "root_path": ""}, receive, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


async def test_the_actuator_shows_and_changes_breakers() -> None:
    """The same paths, fields and commands as Resilience4j's actuator."""
    guard = r.CircuitBreaker("payments", min_calls=1, window=r.last(1))
    app = r.Actuator(lambda: [guard])
    guard.permit().failure(Boom("no"))

    status, shown = await ask(app, "GET", "/actuator/circuitbreakers")

    assert status == 200
    assert shown["circuitBreakers"]["payments"]["state"] == "OPEN"

    _, kept = await ask(app, "GET", "/circuitbreakerevents/payments")

    assert [event["type"] for event in kept["circuitBreakerEvents"]] == [
        "ERROR",
        "FAILURE_RATE_EXCEEDED",
        "STATE_TRANSITION",
    ]
    assert kept["circuitBreakerEvents"][0]["errorMessage"] == "Boom: no"
    assert kept["circuitBreakerEvents"][2]["stateTransition"] == "CLOSED_TO_OPEN"

    status, shown = await ask(app, "POST", "/circuitbreakers/payments", b'{"updateState": "CLOSE"}')

    assert (status, shown["currentState"], guard.state) == (200, "CLOSED", r.State.CLOSED)
    assert (await ask(app, "POST", "/circuitbreakers/payments", b'{"updateState": "MELT"}'))[0] == 400
    assert (await ask(app, "GET", "/circuitbreakers/none"))[0] == 404
    assert (await ask(app, "DELETE", "/circuitbreakers"))[0] == 404
    assert len((await ask(app, "GET", "/circuitbreakerevents/payments/error"))[1]["circuitBreakerEvents"]) == 1


async def test_the_actuator_streams_events() -> None:
    """Events come as they happen, those of other types don't, and the reader's leaving ends the stream."""
    guard = r.CircuitBreaker("payments", min_calls=1, window=r.last(1))
    app, sent, leave = r.Actuator(lambda: [guard]), [], asyncio.Event()

    async def receive() -> dict[str, Any]:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    path = "/actuator/streamcircuitbreakerevents/payments/STATE_TRANSITION"
    streaming = asyncio.ensure_future(app({"type": "http", "method": "GET", "path": path}, receive, send))
    await eventually(lambda: len(sent) == 1)
    guard.permit().failure(Boom())
    await eventually(lambda: len(sent) > 1)
    leave.set()
    await asyncio.wait_for(streaming, 10)

    assert sent[1]["body"].startswith(b"id: payments\nevent: STATE_TRANSITION\ndata: {")
    assert not app._streams


async def test_the_actuator_shows_every_kind() -> None:
    """Names and events of retries, limiters and bulkheads, under the paths and in the fields of Resilience4j."""
    found = r.Registry()
    app = r.Actuator(found)  # before any policy is there
    retry, rate = found.retry("pay", attempts=2, wait=0), found.rate_limiter("pay", limit=1, period=60, max_wait=0)
    bulkhead, limiter = found.bulkhead("pay", max_calls=0), found.time_limiter("pay", timeout=0.01)
    found.thread_pool("files")
    with pytest.raises(Boom):
        await retry.call(fails)
    await rate.call(asyncio.sleep, 0)
    with pytest.raises(r.RateLimited):
        await rate.call(asyncio.sleep, 0)
    with pytest.raises(r.BulkheadFull):
        await bulkhead.call(asyncio.sleep, 0)
    with pytest.raises(TimeoutError):
        await limiter.call(asyncio.sleep, 10)

    assert await ask(app, "GET", "/actuator/retries") == (200, {"retries": ["pay"]})
    assert await ask(app, "GET", "/ratelimiters") == (200, {"rateLimiters": ["pay"]})
    assert await ask(app, "GET", "/bulkheads") == (200, {"bulkheads": ["files", "pay"]})
    assert await ask(app, "GET", "/timelimiters") == (200, {"timeLimiters": ["pay"]})
    _, shown = await ask(app, "GET", "/retryevents")
    assert [
        (each["retryName"], each["type"], each["numberOfAttempts"], each["errorMessage"])
        for each in shown["retryEvents"]
    ] == [
        ("pay", "RETRY", 1, "Boom: no"),
        ("pay", "ERROR", 2, "Boom: no"),
    ]
    for path, field, name, kind in (
        ("ratelimiterevents", "rateLimiterEvents", "rateLimiterName", "FAILED_ACQUIRE"),
        ("bulkheadevents", "bulkheadEvents", "bulkheadName", "CALL_REJECTED"),
        ("timelimiterevents", "timeLimiterEvents", "timeLimiterName", "TIMEOUT"),
    ):
        _, shown = await ask(app, "GET", f"/{path}/pay/{kind.lower()}")
        assert [(each[name], each["type"]) for each in shown[field]] == [("pay", kind)]
        assert (await ask(app, "GET", f"/{path}/other"))[1] == {field: []}
        assert (await ask(app, "GET", f"/{path}/pay/nonsense"))[0] == 400
    found.remove(retry)
    assert await ask(app, "GET", "/retryevents") == (200, {"retryEvents": []})


async def fails() -> None:
    raise Boom("no")


async def test_a_stream_takes_events_from_threads_and_refuses_what_it_cannot_serve() -> None:
    """An event of another thread wakes the reader; too many readers and unknown types are refused."""
    guard = r.CircuitBreaker("pay", min_calls=1, window=r.last(1), threads=True)
    app, sent, leave = r.Actuator(lambda: [guard]), [], asyncio.Event()

    async def receive() -> dict[str, Any]:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/streamcircuitbreakerevents"}
    streaming = asyncio.ensure_future(app(scope, receive, send))
    await eventually(lambda: len(sent) == 1)
    await asyncio.to_thread(guard.permit().failure, Boom())
    await eventually(lambda: len(sent) >= 4)
    leave.set()
    await asyncio.wait_for(streaming, 10)

    assert b"event: ERROR\n" in sent[1]["body"]
    assert (await ask(app, "GET", "/streamcircuitbreakerevents/pay/nonsense"))[0] == 400
    app._streams |= {actuator._Stream() for _ in range(actuator.MAX_STREAMS)}
    assert (await ask(app, "GET", "/streamcircuitbreakerevents"))[0] == 503
