"""Logs, access lines and metrics: one line an event, with the trace, and nothing secret."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import pytest
import structlog

from backstay.telemetry import TraceContext, use
from backstay.telemetry.access import AccessLog
from backstay.telemetry.logs import configure, get_logger
from backstay.telemetry.metrics import exposition


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def test_rich_stays_out_of_a_service() -> None:
    """Tracebacks are plain here, so a service pays neither time nor memory for what could colour them."""
    shown = "print('rich' in sys.modules)"
    code = f"import sys, backstay.telemetry.logs; {shown}; import rich; {shown}"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.split() == ["False", "True"]


def test_json_line(stream: io.StringIO) -> None:
    """A line is one JSON object with event, level, time, service, trace and values."""
    configure("orders", "json", "info", stream=stream)
    context = TraceContext.new()
    with use(context):
        get_logger().info("job.failed", job="prune", id=context)
    get_logger().debug("never.seen")
    (line,) = stream.getvalue().splitlines()
    told = json.loads(line)

    assert (told["event"], told["level"], told["service"], told["job"]) == ("job.failed", "info", "orders", "prune")
    assert told["trace_id"] == context.trace_id
    assert told["at"].endswith("Z")


def test_standard_library_lines(stream: io.StringIO) -> None:
    """The standard library's loggers write the same lines; an exception is part of its line."""
    configure("orders", "json", "info", stream=stream)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("backstay.db").exception("db.failed number=%d", 7, extra={"table": "orders"})
    (line,) = stream.getvalue().splitlines()

    assert json.loads(line)["event"] == "db.failed number=7"
    assert json.loads(line)["table"] == "orders"
    assert "ValueError: no" in json.loads(line)["exception"]


def test_configured_twice(stream: io.StringIO) -> None:
    """A second configuration replaces the first."""
    configure("a", stream=stream)
    configure("b", stream=stream)
    get_logger().warning("once")

    assert len(stream.getvalue().splitlines()) == 1


def test_console(stream: io.StringIO) -> None:
    """On a terminal a line is for people, and a traceback shows no variables."""
    configure("orders", "console", "info", stream=stream)
    secret = "hunter" + "2"
    try:
        raise ValueError("no")
    except ValueError:
        get_logger().exception("it.failed")

    assert "it.failed" in stream.getvalue()
    assert secret not in stream.getvalue()


def test_access_line() -> None:
    """A request is one line; those of machines that ask all the time are left out unless they fail."""
    out = io.BytesIO()
    access = AccessLog("orders", out)
    access.write("POST", "/orders", "/orders", 201, 0.0123, "t" * 32, "ann")
    access.write("GET", "/health/ready", "/health/ready", 200, 0.001, "t" * 32, None)
    access.write("GET", "/health/ready", "/health/ready", 503, 0.001, "t" * 32, None)
    first, second = map(json.loads, out.getvalue().splitlines())

    assert (
        first["event"],
        first["method"],
        first["status"],
        first["ms"],
        first["who"],
    ) == ("http.request", "POST", 201, 12.3, "ann")
    assert (second["level"], second["status"]) == ("warning", 503)


def test_access_line_without_a_reader() -> None:
    """A reader that has gone takes no request with it."""
    out = io.BytesIO()
    out.close()

    AccessLog("orders", out).write("GET", "/", "/", 200, 0.1, "t", None)


class State(Enum):
    HALF_OPEN = 1


@dataclass(frozen=True)
class Pool:
    size: int


@dataclass(frozen=True)
class Numbers:
    calls: int
    rate: float | None
    open: bool
    state: State
    pool: Pool
    up: dict[str, int]


class SomeBreaker:
    name = "payments"

    def statistics(self) -> Numbers:
        return Numbers(3, None, True, State.HALF_OPEN, Pool(4), {"orders": 2})


def test_metrics_of_statistics() -> None:
    """Numbers in statistics become metrics under the name of their owner."""
    text = exposition("orders", [], 1, [SomeBreaker(), None, object()]).decode()

    for line in (
        'backstay_some_breaker_calls{name="payments",of=""} 3.0',
        'backstay_some_breaker_open{name="payments",of=""} 1.0',
        'backstay_some_breaker_state{name="payments",of="half_open"} 1.0',
        'backstay_some_breaker_pool_size{name="payments",of=""} 4.0',
        'backstay_some_breaker_up{name="payments",of="orders"} 2.0',
        "http_server_active_requests 1.0",
    ):
        assert line in text
    assert "rate" not in text


def test_metrics_of_namesakes() -> None:
    """Two parts of one name don't become one series twice."""
    text = exposition("orders", [], 0, [SomeBreaker(), SomeBreaker()]).decode()

    assert 'backstay_some_breaker_calls{name="payments",of=""} 3.0' in text
    assert 'backstay_some_breaker_calls{name="payments-2",of=""} 3.0' in text
