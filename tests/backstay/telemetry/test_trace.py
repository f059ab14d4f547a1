"""W3C trace context: parsing, writing and passing on."""

import pytest

from backstay.telemetry import TraceContext, current, use

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


@pytest.mark.parametrize("header", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-01".encode()])
def test_header_is_read(header: str | bytes) -> None:
    """A header is read as text and as bytes."""
    assert TraceContext(TRACE, SPAN, True) == TraceContext.parse(header)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "junk",
        f"00-{TRACE}-{SPAN}",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"00-{TRACE}-{SPAN}-01\n",
        b"\xff\xfe",
    ],
)
def test_malformed_header_is_no_trace(header: str | bytes | None) -> None:
    """What the W3C form forbids starts a new trace instead of an error."""
    assert TraceContext.parse(header) is None


def test_later_version_is_read() -> None:
    """A later version is read by its first four fields, as the W3C form asks."""
    assert TraceContext(TRACE, SPAN, False) == TraceContext.parse(f"01-{TRACE}-{SPAN}-00-what-else")


def test_round_trip() -> None:
    """What is written is read again as the same context."""
    context = TraceContext.new(sampled=True)

    assert context == TraceContext.parse(context.traceparent)


def test_child_stays_in_the_trace() -> None:
    """A child shares trace and sampling, and has a span of its own."""
    parent = TraceContext.new(sampled=True)
    child = parent.child()

    assert (parent.trace_id, True) == (child.trace_id, child.sampled)
    assert parent.span_id != child.span_id


def test_a_request_is_below_its_caller() -> None:
    """A good header is continued at a position of its own; without one a trace begins."""
    header = f"00-{TRACE}-{SPAN}-01"
    below = TraceContext.below(header)

    assert (below.trace_id, below.sampled) == (TRACE, True)
    assert below.span_id != SPAN
    for bad in (None, b"", header + "-extra"):
        begun = TraceContext.below(bad)
        assert begun.trace_id != TRACE
        assert TraceContext.parse(begun.traceparent) == begun


def test_use_nests() -> None:
    """`use` sets the current context for its block only."""
    outer, inner = TraceContext.new(), TraceContext.new()
    with use(outer):
        with use(inner):
            assert inner is current()
        assert outer is current()
    assert current() is None
