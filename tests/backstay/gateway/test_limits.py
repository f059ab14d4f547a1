"""Token buckets, the deny list, addresses, the log and the counters, each without a socket."""

import asyncio
import heapq
import io
import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backstay.gateway import AccessLog, DenyList, RevocationFeed, TokenBuckets
from backstay.gateway.forwarding import Peer, address_key
from backstay.gateway.metrics import Metrics
from backstay.gateway.plane import Outcome
from backstay.http.framing import RequestHead
from backstay.telemetry.lines import LineWriter
from backstay.testing import FakeClock, eventually


def test_a_bucket_is_spent_and_refills():
    """`burst` requests at once, then one per 1/rate seconds; a refusal tells how long to wait."""
    buckets = TokenBuckets(rate=2, burst=3)

    first = [buckets.take("a", 100.0) for _ in range(4)]
    later = [buckets.take("a", 100.5) for _ in range(2)]

    assert [(d.allowed, d.remaining, d.retry_after) for d in first] == [
        (True, 2, 0),
        (True, 1, 0),
        (True, 0, 0),
        (False, 0, 1),
    ]
    assert [d.allowed for d in later] == [True, False]
    assert buckets.take("b", 100.5).allowed
    assert buckets.take("a", 1000.0).remaining == 2


def test_requests_may_cost_more():
    """A request of five tokens at one a second waits for all of them."""
    buckets = TokenBuckets(rate=1, burst=5, cost=5)

    assert buckets.take("a", 0.0).allowed
    assert buckets.take("a", 1.0).retry_after == 4
    assert buckets.exhausted("a", 4.9)
    assert buckets.take("a", 5.0).allowed


def test_memory_is_bounded():
    """Any number of callers is kept in bounded memory; a spent bucket survives full ones being forgotten."""
    buckets = TokenBuckets(rate=1, burst=1, max_keys=100)
    buckets.take("spent", 1000.0)
    for i in range(1000):
        buckets.take(f"old-{i}", i / 1000)
    assert buckets.statistics().keys <= 100

    buckets.take("spent", 1000.0)
    for i in range(50):
        buckets.take(f"new-{i}", 1000.0)

    assert not buckets.take("spent", 1000.0).allowed


@given(
    st.integers(1, 20),
    st.integers(1, 20),
    st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=60),
)
def test_never_more_than_burst_plus_rate(rate, burst, pauses):
    """In any stretch of time no more pass than the bucket holds plus what flowed in."""
    buckets = TokenBuckets(rate=rate, burst=burst)
    now, passed = 0.0, []
    for pause in pauses:
        now += pause
        if buckets.take("a", now).allowed:
            passed.append(now)

    for i, start in enumerate(passed):
        for j in range(i, len(passed)):
            assert j - i + 1 <= burst + rate * (passed[j] - start) + 1e-6


@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.floats(0, 3, allow_nan=False), min_size=1, max_size=60))
def test_a_caller_who_waits_as_told_passes(rate, burst, pauses):
    """After `retry_after` seconds the request is allowed."""
    buckets = TokenBuckets(rate=rate, burst=burst)
    now = 0.0
    for pause in pauses:
        now += pause
        decision = buckets.take("a", now)
        if not decision.allowed:
            now += decision.retry_after
            assert buckets.take("a", now).allowed


def test_a_crowd_behind_one_bucket_is_told_different_seconds():
    """1,900 requests at once at 100 a second, each obeying what it is told: few come for nothing, no second is lost."""
    buckets = TokenBuckets(rate=100, burst=200)
    callers, refused, last = [0.0] * 1900, 0, 0.0
    while callers:
        now = heapq.heappop(callers)
        decision = buckets.take("a", now)
        if decision.allowed:
            last = now
        else:
            refused += 1
            heapq.heappush(callers, now + decision.retry_after)

    assert refused <= 3 * 1900
    assert last <= 1.2 * (1900 - 200) / 100


def test_what_was_told_has_a_bound():
    """One who asks without waiting doesn't put off the others for long, and is forgotten."""
    buckets = TokenBuckets(rate=1, burst=1, max_keys=10)
    waits = [buckets.take("greedy", 0.0).retry_after for _ in range(1000)]

    assert max(waits) == 10
    assert waits[1:6] == [1, 2, 3, 4, 5]
    assert buckets.take("greedy", 20.0).allowed
    assert buckets.take("greedy", 20.0).retry_after == 1
    for number in range(1000):
        buckets.take(str(number), float(number))
        buckets.take(str(number), float(number))
    assert len(buckets._told) <= 10


def test_the_deny_list_forgets_what_has_expired():
    """A session is refused until its last token has expired, and memory is bounded."""
    now = 1000.0
    denied = DenyList(max_sessions=2000, now=lambda: now)
    denied.add("past", 900.0)
    for i in range(5000):
        denied.add(f"s{i}", 1300.0 + i)

    assert "past" not in denied
    assert "s4999" in denied
    assert len(denied) <= 2000
    now = 1e9
    denied.prune()
    assert len(denied) == 0


class Stream:
    """A stream of revocations that ends or breaks as it is told."""

    problem = None

    def __init__(self, items, error=None):
        self.items, self.error, self.closed = items, error, False

    async def __aiter__(self):
        for item in self.items:
            yield item
        if self.error:
            raise self.error
        await asyncio.Event().wait()

    async def aclose(self):
        self.closed = True


async def test_a_broken_stream_is_opened_again():
    """A stream that breaks is reported, closed and opened again, and nothing is forgotten meanwhile."""
    streams = [Stream([("a", 4e9)], OSError("away")), Stream([("b", 4e9)])]
    opened = []
    clock = FakeClock()

    def open_stream(since):
        opened.append(since)
        return streams[len(opened) - 1]

    denied = DenyList()
    async with RevocationFeed(denied, open_stream, clock=clock) as feed:
        await eventually(lambda: feed.problem == "OSError: away")
        clock.advance(1.0)
        await eventually(lambda: "b" in denied)
        assert feed.problem is None

    assert "a" in denied
    assert len(opened) == 2
    assert all(stream.closed for stream in streams)


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::9", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("unknown", "unknown"),
    ],
)
def test_an_ipv6_client_owns_its_network(address, key):
    """Changing the last half of an IPv6 address doesn't make a new client."""
    assert address_key(address) == key


def test_the_client_behind_trusted_proxies():
    """The nearest address that isn't ours counts; what the client itself wrote before it doesn't."""
    ours = re.compile(r"10\..*")
    headers = {b"x-forwarded-for": b"6.6.6.6, 1.2.3.4, 10.0.0.2"}

    assert Peer("10.0.0.1", 80, ours).client_key(headers) == "1.2.3.4"
    assert Peer("9.9.9.9", 80, ours).client_key(headers) == "9.9.9.9"
    assert Peer("10.0.0.1", 80, ours).client_key({}) == "10.0.0.1"


def test_a_hostile_value_of_a_trusted_proxy_is_dropped():
    """Only what can be an address is repeated in our own headers."""
    peer = Peer("10.0.0.1", 80, re.compile("10.*"))

    lines = peer.lines(b"shop", {b"x-forwarded-for": b"<script>", b"x-forwarded-proto": b"https"})

    assert lines == b"x-forwarded-for: 10.0.0.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: shop\r\n"


OUTCOME = Outcome(
    head=RequestHead(b"GET", b'/a"b?secret=1', "1.1", [], {}),
    peer=Peer("1.2.3.4", 80, None),
    route=None,
    user=None,
    upstream=("h", 1),
    status=200,
    seconds=0.0125,
    trace_id="t",
)


async def test_the_access_log_is_gathered():
    """Lines are JSON, written together, and none is lost at the end."""
    stream = io.BytesIO()
    log = AccessLog(stream)
    log.write(OUTCOME)
    log.write(OUTCOME._replace(status=503, upstream=None, user="ada"))
    assert stream.getvalue() == b""

    log.close()
    first, second = map(json.loads, stream.getvalue().splitlines())

    assert (first["path"], first["ms"], first["level"], "who" in first) == ('/a"b', 12.5, "info", False)
    assert (second["level"], second["who"]) == ("warning", "ada")


async def test_a_reader_that_stalls_costs_lines_and_nothing_else():
    """A full pipe stops no request: what the bounded buffer can't hold is dropped and counted; the rest comes whole."""
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "wb") as stream:
        writer = LineWriter(stream, limit=200_000)
        line = b"x" * 999 + b"\n"
        for _ in range(1000):
            writer.write(line)
        assert 0 < writer.dropped < 1000
        read = asyncio.get_running_loop().run_in_executor(None, reader.read)
        await asyncio.to_thread(writer.close)
        dropped = writer.dropped
        writer.write(line)
        stream.close()

        assert await read == line * (1000 - dropped)
        assert writer.dropped == dropped + 1


def test_a_reader_that_is_gone_costs_lines_only():
    """A broken pipe is counted, and raises nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as stream:
        writer = LineWriter(stream)
        writer.write(b"a\nb\n")
        writer.close()
    assert writer.dropped == 2


async def test_the_access_log_writes_by_itself():
    """Nobody has to ask for the lines."""
    stream = io.BytesIO()
    AccessLog(stream, format="console").write(OUTCOME)

    await eventually(lambda: stream.getvalue())

    assert b'200 GET /a"b 12.5 ms' in stream.getvalue()


def test_metrics_are_prometheus_text():
    """Counts by route and status, a histogram that adds up, and escaped labels."""
    metrics = Metrics()
    for seconds in (0.0005, 0.02, 99.0):
        metrics.route('a"b').count(200, seconds)

    text = metrics.text([("g", "A gauge.", 3)])

    assert 'backstay_gateway_requests_total{route="a\\"b",status="200"} 3' in text
    assert 'le="0.001"} 1\n' in text
    assert 'le="10.0"} 2\n' in text
    assert 'le="+Inf"} 3\n' in text
    assert "# TYPE g gauge\ng 3\n" in text
