"""Circuit breakers, time limiters, retries and fallbacks of routes."""

import asyncio
import json

import pytest
from tests.backstay.gateway.conftest import response

from backstay import resilience as r
from backstay.errors import ConfigError
from backstay.gateway import Gateway, Management, RouteTable, read_definition
from backstay.http import HttpRequest
from backstay.http.messages import Headers
from backstay.testing import eventually

TYPE = "urn:backstay:problem:"
RETRY = "{name: Retry, args: {retries: 2, methods: 'GET,POST', backoff: {firstBackoff: 1ms}}}"
BREAKER = "{name: CircuitBreaker, args: {name: app, statusCodes: [500, SERVICE_UNAVAILABLE]}}"


def answers(*statuses, lines=()):
    """Answer with these statuses in turn, the last for ever; 0 hangs up."""
    left = list(statuses)

    async def behave(upstream, request, reader, writer):
        status = left.pop(0) if len(left) > 1 else left[0]
        if not status:
            return False
        writer.write(response(status, upstream.name.encode(), *lines))
        return True

    return behave


async def hang(upstream, request, reader, writer):
    await reader.read()
    return False


def policies(**options):
    """A registry whose breaker `app` opens at two failures of two calls."""
    return r.Registry({"circuitbreaker": {"app": {"window": r.last(2), "min_calls": 2, "wait_open": 30.0, **options}}})


def state(gateway):
    return gateway.policies.circuit_breaker("app").state


async def test_an_open_breaker_answers_503_without_asking_the_service(system):
    """Two failures of two open it; then clients hear at once that, and when, to come again."""
    upstream = await system.upstream(answers(500))
    gateway = await system.simple(upstream, filters=BREAKER, policies=policies())

    seen = [await system.ask(gateway) for _ in range(3)]

    assert [answer.status for answer in seen] == [500, 500, 503]
    assert len(upstream.requests) == 2
    refused = seen[2]
    assert refused.problem["type"] == TYPE + "circuit-open"
    assert "'app'" in refused.problem["detail"]
    assert 1 <= int(refused.get("retry-after")) <= 30
    assert refused.get("x-do-not-retry") == "1"


@pytest.mark.parametrize("status", [400, 401, 404, 409, 429])
async def test_what_the_client_did_wrong_opens_nothing(system, status):
    """A 4xx is an answer: it counts as a success."""
    upstream = await system.upstream(answers(status))
    gateway = await system.simple(upstream, filters=BREAKER, policies=policies())

    assert [(await system.ask(gateway)).status for _ in range(4)] == [status] * 4
    assert state(gateway) is r.State.CLOSED
    assert gateway.policies.circuit_breaker("app").statistics().succeeded_total == 4


async def test_a_service_that_sheds_load_opens_nothing(system):
    """A refusal of a part is no failure: the breaker would turn it into a refusal of everything."""
    upstream = await system.upstream(answers(503, lines=("X-Do-Not-Retry: 1",)))
    gateway = await system.simple(upstream, filters=BREAKER, policies=policies())

    assert [(await system.ask(gateway)).status for _ in range(4)] == [503] * 4
    assert len(upstream.requests) == 4
    assert gateway.policies.circuit_breaker("app").statistics().buffered_calls == 0


async def test_without_status_codes_only_no_answer_is_a_failure(system):
    """The short form, as in Spring: a 500 is an answer, a connection that dies is none."""
    upstream = await system.upstream(answers(500, 500, 500, 0))
    gateway = await system.simple(upstream, filters="CircuitBreaker=app", policies=policies())

    assert [(await system.ask(gateway)).status for _ in range(5)] == [500, 500, 500, 502, 503]
    assert state(gateway) is r.State.OPEN


async def test_nobody_there_is_a_failure(system):
    """Without an instance the breaker opens too."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, filters="CircuitBreaker=app", policies=policies())
    system.registry.replace({})

    seen = [(await system.ask(gateway)).problem["type"] for _ in range(3)]

    assert seen == [TYPE + "no-instance", TYPE + "no-instance", TYPE + "circuit-open"]


async def test_the_time_limiter_of_the_name_ends_a_call(system):
    """504 after its time-out, which the service is told; and that is a failure."""
    upstream = await system.upstream(hang)
    found = r.Registry(
        {
            "circuitbreaker": {"app": {"window": r.last(1), "min_calls": 1, "wait_open": 30.0}},
            "timelimiter": {"app": {"timeout": 0.2}},
        }
    )
    gateway = await system.simple(upstream, filters="CircuitBreaker=app", policies=found)

    first, second = await system.ask(gateway), await system.ask(gateway)

    assert (first.status, second.status) == (504, 503)
    assert int(upstream.requests[0].get("x-request-deadline-ms")) <= 200
    assert found.time_limiter("app").statistics().timeout == 1


async def test_a_client_in_a_hurry_opens_nothing(system):
    """A deadline shorter than the route's own says something about the client, not about the service."""
    upstream = await system.upstream(hang)
    gateway = await system.simple(upstream, filters="CircuitBreaker=app", policies=policies())

    seen = [(await system.ask(gateway, "/", "x-request-deadline-ms: 50")).status for _ in range(3)]

    assert seen == [504] * 3
    assert state(gateway) is r.State.CLOSED
    counted = gateway.policies.circuit_breaker("app").statistics()
    assert (counted.buffered_calls, counted.deadline_exceeded_total) == (0, 3)


async def test_but_a_call_that_was_slow_already_counts(system):
    """Who gives up after the breaker's own threshold of slow calls has seen a slow service."""
    upstream = await system.upstream(hang)
    gateway = await system.simple(
        upstream, filters="CircuitBreaker=app", policies=policies(slow=r.over(0.02, rate=100), min_calls=1)
    )

    await system.ask(gateway, "/", "x-request-deadline-ms: 200")

    assert state(gateway) is r.State.OPEN


async def test_a_client_that_leaves_gives_its_probe_back(system):
    """Half-open, one probe: the client goes, and the next may try."""
    upstream = await system.upstream(hang)
    gateway = await system.simple(
        upstream, filters="CircuitBreaker=app", policies=policies(half_open=r.probes(1), wait_open=0.001)
    )
    breaker = gateway.policies.circuit_breaker("app")
    breaker.transition_to(r.State.OPEN)
    breaker.transition_to(r.State.HALF_OPEN)

    wire = await system.connect(gateway)
    wire.send(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
    await eventually(lambda: upstream.requests)
    refused = await system.ask(gateway)
    wire.close()
    await eventually(lambda: not gateway.statistics().in_flight)
    upstream.behave = answers(200)

    assert refused.status == 503
    assert (await system.ask(gateway)).status == 200
    assert state(gateway) is r.State.CLOSED


async def test_a_slow_upload_is_not_a_slow_call(system):
    """The time of a call begins when the service has the whole request."""
    upstream = await system.upstream(answers(200))
    gateway = await system.simple(
        upstream, filters="CircuitBreaker=app", policies=policies(slow=r.over(0.2, rate=1), min_calls=1)
    )
    breaker = gateway.policies.circuit_breaker("app")
    wire = await system.connect(gateway)
    wire.send(b"POST / HTTP/1.1\r\nHost: shop.test\r\nContent-Length: 2\r\n\r\na")
    await eventually(lambda: gateway.statistics().in_flight)
    began = asyncio.get_running_loop().time()
    await eventually(lambda: asyncio.get_running_loop().time() > began + 0.3)
    wire.send(b"b")

    assert (await wire.answer()).status == 200
    assert breaker.statistics().slow_succeeded_total == 0


# -- retry


async def test_a_failure_is_repeated_and_says_so(system):
    """503, 503, 200: the client sees the last; the second and third attempt carry their number."""
    upstream = await system.upstream(answers(503, 503, 200))
    gateway = await system.simple(upstream, filters=RETRY)

    answer = await system.ask(gateway)

    assert answer.status == 200
    assert [request.get("x-retry-attempt") for request in upstream.requests] == [None, "2", "3"]
    deadlines = [int(request.get("x-request-deadline-ms")) for request in upstream.requests]
    assert deadlines == sorted(deadlines, reverse=True)
    assert answer.get("x-do-not-retry") is None
    assert gateway.policies.retry("all").statistics().successful_with_retry == 1


async def test_the_last_failure_is_passed_on_as_it_is(system):
    """Its body and status stay; and who asked is told not to repeat what was repeated here already."""
    upstream = await system.upstream(answers(503))
    gateway = await system.simple(upstream, filters=RETRY)

    answer = await system.ask(gateway)

    assert (answer.status, answer.body, len(upstream.requests)) == (503, b"upstream", 3)
    assert answer.get("x-do-not-retry") == "1"


@pytest.mark.parametrize(
    ("method", "lines", "asked"),
    [
        ("GET", (), 3),
        ("POST", (), 1),
        ("POST", ("Idempotency-Key: k",), 3),
        ("PUT", (), 1),
        ("GET", ("x-retry-attempt: 2",), 1),
    ],
    ids=["idempotent", "not idempotent", "with a key", "not among the methods", "repeated by another hop"],
)
async def test_who_is_repeated(system, method, lines, asked):
    """A request goes twice only if its method is named, it is harmless, and no one before us repeats it."""
    upstream = await system.upstream(answers(0))
    gateway = await system.simple(upstream, filters=RETRY)

    answer = await system.ask(gateway, "/", *lines, method=method, body=b"" if method == "GET" else b"hello")

    assert (answer.status, len(upstream.requests)) == (502, asked)
    assert all(request.body == (b"" if method == "GET" else b"hello") for request in upstream.requests)
    if "x-retry-attempt: 2" in lines:
        assert upstream.requests[0].get("x-retry-attempt") == "2"


async def test_a_service_that_sheds_load_is_left_alone(system):
    """`x-do-not-retry` on an answer: no attempt more, and the hint goes on to the client."""
    upstream = await system.upstream(answers(503, lines=("X-Do-Not-Retry: 1",)))
    gateway = await system.simple(upstream, filters=RETRY)

    answer = await system.ask(gateway)

    assert (answer.status, len(upstream.requests)) == (503, 1)
    assert answer.all("x-do-not-retry") == ["1"]


async def test_a_large_body_is_not_sent_again(system):
    """More than is kept can't be replayed."""
    upstream = await system.upstream(answers(503))
    gateway = await system.simple(upstream, filters=RETRY)

    answer = await system.ask(gateway, "/", "Idempotency-Key: k", method="POST", body=b"x" * 100_000)

    assert (answer.status, len(upstream.requests)) == (503, 1)


async def test_the_budget_bounds_all_routes_to_a_service(system):
    """Without a minimum and with 10 %, ten calls have one retry."""
    upstream = await system.upstream(answers(503))
    budget = "{ratio: 0.1, minimumPerSecond: 0}"
    gateway = await system.simple(
        upstream, filters=f"{{name: Retry, args: {{retries: 3, budget: {budget}}}}}", retry_after=1
    )

    for _ in range(10):
        await system.ask(gateway)

    assert len(upstream.requests) == 11
    statistics = gateway.policies.retry("all").statistics()
    assert (statistics.retries_total, statistics.budget_exhausted_total) == (1, 10)


async def test_a_retry_that_cannot_finish_is_not_begun(system):
    """Retry-After of 5 s and a deadline of one second: the client gets the answer that there is."""
    upstream = await system.upstream(answers(503, lines=("Retry-After: 5",)))
    gateway = await system.simple(upstream, filters=RETRY)

    answer = await system.ask(gateway, "/", "x-request-deadline-ms: 1000")

    assert (answer.status, len(upstream.requests)) == (503, 1)


async def test_who_has_waited_for_an_instance_waits_once(system):
    """All instances were looked at, for a while: another attempt would only look and wait again."""
    upstream = await system.upstream()
    gateway = await system.simple(upstream, filters=RETRY, instance_wait=0.05)
    system.registry.replace({})

    answer = await system.ask(gateway)

    assert answer.problem["type"] == TYPE + "no-instance"
    assert gateway.policies.retry("all").statistics().retries_total == 0


async def test_the_breaker_sees_each_attempt(system):
    """retry ( breaker ( call )): it opens in the middle of the attempts, and ends them."""
    upstream = await system.upstream(answers(503))
    gateway = await system.simple(upstream, filters=f"{RETRY}, {BREAKER}", policies=policies())

    answer = await system.ask(gateway)

    assert answer.problem["type"] == TYPE + "circuit-open"
    assert len(upstream.requests) == 2


async def test_an_attempt_that_takes_too_long_is_repeated(system):
    """The time limiter ends an attempt; the next one answers."""

    async def once(upstream, request, reader, writer):
        if len(upstream.requests) == 1:
            return await hang(upstream, request, reader, writer)
        return await answers(200)(upstream, request, reader, writer)

    upstream = await system.upstream(once)
    found = r.Registry({"timelimiter": {"app": {"timeout": 0.2}}})
    gateway = await system.simple(upstream, filters=f"{RETRY}, CircuitBreaker=app", policies=found)

    assert (await system.ask(gateway)).status == 200
    assert len(upstream.requests) == 2


# -- fallback

FALLBACK = """
        - id: main
          uri: lb://app
          metadata: {public: true}
          predicates: [Path=/main/**]
          filters:
            - name: CircuitBreaker
              args: {name: app, fallbackUri: "forward:/instead", statusCodes: [500]}
        - id: instead
          uri: lb://other
          metadata: {public: true}
          predicates: [Path=/instead]
"""


@pytest.mark.parametrize("status", [500, 0], ids=["a failing status", "no answer"])
async def test_the_fallback_route_answers(system, status):
    """Whatever fails, and while the breaker is open, another route answers."""
    upstream, other = await system.upstream(answers(status)), await system.upstream(name="other")
    gateway = await system.gateway(FALLBACK, {"app": [upstream.address], "other": [other.address]}, policies=policies())

    seen = [await system.ask(gateway, "/main/1", method="PUT", body=b"hi") for _ in range(3)]

    assert [(answer.status, answer.body) for answer in seen] == [(200, b"other")] * 3
    assert {(request.target, request.body) for request in other.requests} == {("/instead", b"hi")}
    assert len(upstream.requests) == 2


async def test_a_fallback_that_fails_too_shows_its_own_failure(system):
    """There is no fallback of a fallback."""
    upstream, other = await system.upstream(answers(500)), await system.upstream(answers(418))
    gateway = await system.gateway(FALLBACK, {"app": [upstream.address], "other": [other.address]}, policies=policies())

    assert (await system.ask(gateway, "/main/1")).status == 418


async def test_a_fallback_address_that_refuses_is_no_fault_of_the_service(system):
    """The instance that was asked first isn't left out because another address is dead."""
    upstream = await system.upstream(answers(500))
    routes = FALLBACK.replace("lb://other", f"http://{await system.refused_address()}")
    gateway = await system.gateway(routes, {"app": [upstream.address]}, policies=policies())

    assert (await system.ask(gateway, "/main/1")).status == 502
    assert gateway.statistics().ejections == 0


# -- configuration


def table(filters):
    routes = f"[{{id: a, uri: 'lb://app', predicates: ['Path=/a'], filters: [{filters}]}}]"
    return RouteTable(read_definition(f"spring: {{cloud: {{gateway: {{routes: {routes}}}}}}}", {}))


MISTAKES = {
    "no name": ("CircuitBreaker=", "argument name is missing"),
    "a status that is none": (
        "{name: CircuitBreaker, args: {name: a, statusCodes: [NOPE]}}",
        "'NOPE' is no HTTP status",
    ),
    "a fallback elsewhere": (
        "{name: CircuitBreaker, args: {name: a, fallbackUri: 'http://b/c'}}",
        "must be forward:/path",
    ),
    "a fallback to nowhere": (
        "{name: CircuitBreaker, args: {name: a, fallbackUri: 'forward:/nowhere'}}",
        "no route is at /nowhere",
    ),
    "no retries": ("Retry=0", "retries='0' must be a whole number of at least 1"),
    "a series": ("{name: Retry, args: {series: SOME}}", "series: 'SOME' must be one of"),
    "a method": ("{name: Retry, args: {methods: FETCH}}", "methods: 'FETCH' must be one of GET"),
    "an exception": ("{name: Retry, args: {exceptions: com.shop.Oops}}", "exceptions: 'com.shop.Oops' isn't known"),
    "a backoff": ("{name: Retry, args: {backoff: {firstBackoff: soon}}}", "backoff.firstBackoff: "),
    "a budget": ("{name: Retry, args: {budget: {ratio: -1}}}", "budget.ratio='-1' must be a number of at least 0"),
    "unknown": ("{name: Retry, args: {tries: 3}}", "unknown argument 'tries'"),
}


@pytest.mark.parametrize(("filters", "text"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes_are_named(filters, text):
    """A filter that would do nothing, or something else, stops the start."""
    with pytest.raises(ConfigError) as failure:
        table(filters)

    assert text in str(failure.value)


def test_the_short_form_of_retry_is_springs():
    """`Retry=retries,statuses,methods,firstBackoff,maxBackoff,factor,basedOnPreviousValue`."""
    retry = table("'Retry=3,INTERNAL_SERVER_ERROR,GET,10ms,50ms,2,false'").routes[0].actions.retry

    assert (retry.attempts, retry.statuses, retry.methods) == (4, set(range(500, 600)), {b"GET"})
    assert [retry.wait(n) for n in range(1, 5)] == [0.01, 0.02, 0.04, 0.05]


def test_only_the_statuses_named():
    """The series of server errors goes without saying, unless it is said that there is none."""
    retry = table("{name: Retry, args: {statuses: 'BAD_GATEWAY,429', series: []}}").routes[0].actions.retry

    assert retry.statuses == {502, 429}


def test_a_policy_that_the_gateway_cannot_heed_is_refused(system):
    """A bulkhead for the name of a route's breaker would do nothing: it stops the start."""
    found = r.Registry({"bulkhead": {"app": {"max_calls": 3}}})

    with pytest.raises(ConfigError, match="resilience4j has a bulkhead for 'app'"):
        Gateway(table("CircuitBreaker=app"), system.registry, policies=found)


# -- seeing it


async def test_actuator_and_metrics_show_the_breakers(system):
    """Under Resilience4j's paths and names; a breaker is forced open by POST."""
    upstream = await system.upstream(answers(500))
    gateway = await system.simple(upstream, filters=f"{RETRY}, {BREAKER}", policies=policies())
    management = Management(gateway)

    def ask(path, method="GET", body=b""):
        reply = management(HttpRequest(method, path, "", Headers(), body))
        return reply.status, json.loads(reply.body)

    await system.ask(gateway)

    status, shown = ask("/actuator/circuitbreakers")
    assert (status, shown["circuitBreakers"]["app"]["state"]) == (200, "OPEN")
    kinds = [event["type"] for event in ask("/actuator/circuitbreakerevents/app")[1]["circuitBreakerEvents"]]
    assert kinds == ["ERROR", "ERROR", "FAILURE_RATE_EXCEEDED", "STATE_TRANSITION", "NOT_PERMITTED"]
    assert ask("/actuator/circuitbreakers/app", "POST", b'{"updateState": "CLOSE"}')[0] == 200
    assert state(gateway) is r.State.CLOSED
    assert ask("/actuator/circuitbreakers/none")[0] == 404
    assert ask("/actuator/circuitbreakers/app", "POST", b"{}")[0] == 400
    text = management(HttpRequest("GET", "/metrics", "", Headers())).body.decode()
    assert 'resilience4j_circuitbreaker_state{name="app",state="closed"} 1' in text
    assert 'resilience4j_circuitbreaker_calls_seconds_count{name="app",kind="failed"} 2' in text
    assert 'resilience4j_retry_calls_total{name="all",kind="failed_without_retry"} 1' in text
