"""`resilience4j.*` keys: inheritance, waits, exception classes, overrides, and keys without an effect."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest

import backstay.resilience as r
from backstay.errors import ConfigError
from backstay.resilience import spring_config
from backstay.resilience.java_errors import JAVA_ERRORS
from backstay.resilience.spring_keys import WITHOUT_EFFECT
from backstay.spring import PROPERTIES

PAGE = Path(__file__).parents[3] / "docs/resilience/configuration.md"


def read(text: str, environ: dict[str, str] | None = None, **more: Any) -> dict[str, dict[str, dict[str, Any]]]:
    return spring_config.read(text, environ=environ or {}, **more)


def breaker(config: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the options of the breaker `a`."""
    return read(f"resilience4j.circuitbreaker: {config}", environ)["circuitbreaker"]["a"]


def retry(config: str) -> dict[str, Any]:
    """Return the options of the retry `a`."""
    return read(f"resilience4j.retry: {config}")["retry"]["a"]


def test_a_base_config_has_a_base_config() -> None:
    """Values come from the whole chain; a circle is named."""
    configs = "{one: {slidingWindowSize: 20}, two: {baseConfig: one, minimumNumberOfCalls: 4}}"
    chain = f"{{configs: {configs}, instances: {{a: {{baseConfig: two}}}}}}"

    assert breaker(chain)["window"] == r.last(20)
    assert breaker(chain)["min_calls"] == 4
    with pytest.raises(ConfigError, match=r"configs\.one\.baseConfig: goes round in a circle: one → two → one"):
        breaker(chain.replace("{slidingWindowSize: 20}", "{baseConfig: two}"))


def test_which_config_is_below() -> None:
    """A breaker takes the config of its name before `default`; of the other kinds every config has `default` below."""
    below = "{configs: {default: {%s: 7}, a: {}, b: {}}, instances: {a: {}, c: {baseConfig: b}}}"
    breakers = read(f"resilience4j.circuitbreaker: {below % 'slidingWindowSize'}")["circuitbreaker"]
    retries = read(f"resilience4j.retry: {below % 'maxAttempts'}")["retry"]

    assert "window" not in breakers["a"]
    assert "window" not in breakers["c"]
    assert (retries["a"]["attempts"], retries["c"]["attempts"]) == (7, 7)


@pytest.mark.parametrize(
    ("config", "waits"),
    [
        ("{instances: {a: {waitDuration: 100ms, enableExponentialBackoff: true}}}", [0.1, 0.15, 0.225]),
        ("{instances: {a: {enableExponentialBackoff: true, exponentialBackoffMultiplier: 2}}}", None),
        (
            "{configs: {default: {enableExponentialBackoff: true, exponentialBackoffMultiplier: 2}}, "
            "instances: {a: {waitDuration: 100ms}}}",
            [0.1, 0.2, 0.4],
        ),
        (
            "{configs: {default: {waitDuration: 1s}}, instances: {a: {enableExponentialBackoff: true}}}",
            [1.0, 1.0, 1.0],
        ),
        (
            "{instances: {a: {waitDuration: 1s, enableExponentialBackoff: true, "
            "exponentialBackoffMultiplier: 2, exponentialMaxWaitDuration: 500ms}}}",
            [0.5, 0.5, 0.5],
        ),
    ],
)
def test_a_wait_is_made_where_its_length_is_given(config: str, waits: list[float] | None) -> None:
    """As in Resilience4j: flags alone make no wait, and a cap below the first wait is a cap."""
    wait = retry(config).get("wait")
    found = wait if wait is None else [wait(n) if callable(wait) else wait for n in (1, 2, 3)]

    assert found == waits


@pytest.mark.parametrize(
    ("more", "least", "most"),
    [
        ("exponentialBackoffMultiplier: 2, exponentialMaxWaitDuration: 1s", 0.8, 2.4),
        ("exponentialBackoffMultiplier: 2, exponentialMaxWaitDuration: 1s, randomizedWaitFactor: 0.5", 0.8, 1.0),
        ("exponentialBackoffMultiplier: 2, randomizedWaitFactor: 0.25", 1.2, 2.0),
        ("randomizedWaitFactor: 0.1", 0.253, 0.759),
    ],
)
def test_bounds_of_random_waits_are_the_jars(more: str, least: float, most: float) -> None:
    """What a cap and a factor depend on is taken from the jar's factories; the cap comes after the random part."""
    shape = "waitDuration: 100ms, enableExponentialBackoff: true, enableRandomizedWait: true"
    wait = retry(f"{{instances: {{a: {{{shape}, {more}}}}}}}")["wait"]
    found = [wait(5) for _ in range(2000)]

    assert least - 0.002 <= min(found) < least * 1.1
    assert most * 0.9 < max(found) <= most + 0.002


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("java.io.IOException", [OSError(), ConnectionError(), socket.gaierror()], [TimeoutError(), ValueError()]),
        ("java.lang.RuntimeException", [ValueError(), KeyError()], [OSError(), TimeoutError()]),
        ("java.net.UnknownHostException", [socket.gaierror()], [OSError(), ConnectionError()]),
        ("java.util.concurrent.TimeoutException", [TimeoutError()], [OSError()]),
        ("java.lang.Exception", [OSError(), TimeoutError(), ValueError()], [KeyboardInterrupt()]),
    ],
)
def test_classes_keep_to_javas_hierarchy(name: str, inside: list[BaseException], outside: list[BaseException]) -> None:
    """A time-out is no IOException, an IOException no RuntimeException."""
    assert all(isinstance(error, JAVA_ERRORS[name]) for error in inside)
    assert not any(isinstance(error, JAVA_ERRORS[name]) for error in outside)


def test_time_outs_open_a_breaker_that_ignores_io_errors() -> None:
    """`ignoreExceptions: [java.io.IOException]` leaves time-outs to be counted."""
    options = breaker("{instances: {a: {slidingWindowSize: 1, ignoreExceptions: [java.io.IOException]}}}")
    guard = r.CircuitBreaker("a", **{key: value for key, value in options.items() if key != "tags"})
    guard.permit().failure(OSError())

    assert guard.state is r.State.CLOSED

    guard.permit().failure(TimeoutError())

    assert guard.state is r.State.OPEN


def test_environment_variables_override_and_are_named() -> None:
    """`RESILIENCE4J_…` goes before the file, finds names with dashes, adds instances, and is named in messages."""
    config = "{instances: {a: {slidingWindowSize: 10}}}"

    assert breaker(config, {"RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDINGWINDOWSIZE": "30"})["window"] == r.last(30)
    assert breaker(config, {"RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDING_WINDOW_SIZE": "30"})["window"] == r.last(
        30
    )
    assert read("x: 1", {"RESILIENCE4J_THREAD_POOL_BULKHEAD_INSTANCES_B_QUEUECAPACITY": "3"}) == {
        "threadpoolbulkhead": {"default": {}, "b": {"queue": 3, "tags": {}}}
    }
    with pytest.raises(ConfigError) as error:
        breaker(config, {"RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDINGWINDOWSIZE": "x"})
    assert "(from the environment variable RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLIDINGWINDOWSIZE)" in str(
        error.value
    )
    with pytest.raises(ConfigError, match=r"instances\.a\.slow: unknown"):
        breaker(config, {"RESILIENCE4J_CIRCUITBREAKER_INSTANCES_A_SLOW": "1"})


def test_properties_old_names_and_brackets() -> None:
    """`.properties`, `limiters` and `backends`, names in brackets."""
    text = "resilience4j.circuitbreaker.instances[my.service].recordExceptions[0]=java.io.IOException"

    assert read(text, syntax=PROPERTIES)["circuitbreaker"]["my.service"]["record"] == (
        JAVA_ERRORS["java.io.IOException"],
    )
    assert read("resilience4j.ratelimiter.limiters.a.limitForPeriod: 3")["ratelimiter"]["a"]["limit"] == 3
    assert read("resilience4j.retry.backends.a.maxAttempts: 3")["retry"]["a"]["attempts"] == 3


def test_only_what_is_wanted_is_resolved() -> None:
    """A placeholder of another section or instance needs no value; one of a wanted instance does."""
    text = "db: ${DB}\nresilience4j.retry.instances: {a: {maxAttempts: 3}, b: {maxAttempts: '${N}'}}"

    assert read(text, only=["a"])["retry"]["a"]["attempts"] == 3
    with pytest.raises(ConfigError, match=r"retry\.instances\.b\.maxAttempts: \$\{N\} isn't set"):
        read(text)


def test_profiles_of_a_registry(tmp_path: Path) -> None:
    """`from_yaml(profiles=)` chooses documents."""
    file = tmp_path / "a.yml"
    key = "resilience4j.bulkhead.instances.a.maxConcurrentCalls"
    file.write_text(f"{key}: 1\n---\nspring.config.activate.on-profile: eu\n{key}: 2")

    assert r.Registry.from_yaml(file, environ={}).bulkhead("a").max_calls == 1
    assert r.Registry.from_yaml(file, environ={}, profiles=["eu"]).bulkhead("a").max_calls == 2


@pytest.mark.parametrize(
    "wrong",
    ["resilience4j: 1", "resilience4j: [1]", "resilience4j.retry.instances: 1", "resilience4j.retry.instances.a: 1",
     "resilience4j.retry.instances.a.maxAttempts: {b: 1}", "resilience4j.retry.instances.a.waitDuration: [1]",
     "resilience4j.retry.instances.a.maxAttempts: ²", "resilience4j.retry.tags: 1", "resilience4j.retry.configs: [1]",
     "resilience4j.retry.instances.a.retryExceptions: {a: 1}", "resilience4j.retry.instances.a.baseConfig: [1]",
     "resilience4j.circuitbreaker.instances.a.slidingWindowType: [1]"],
)  # fmt: skip
def test_values_of_the_wrong_kind_are_sentences(wrong: str) -> None:
    """Whatever stands in place of a value, the answer is a ConfigError."""
    with pytest.raises(ConfigError, match="resilience4j"):
        read(wrong)


def test_keys_without_effect_are_those_of_the_page() -> None:
    """What is accepted has an effect, or the page names it as one without."""
    section = PAGE.read_text().partition("## Read, without an effect")[2].partition("\n## ")[0]

    assert set(re.findall(r"`([\w.]+)`", section.partition("|---|")[2])) == WITHOUT_EFFECT
