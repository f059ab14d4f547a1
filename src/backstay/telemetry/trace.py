"""W3C trace context: the request that the current work belongs to.

The context travels in a `ContextVar`, in HTTP as the header `traceparent`, in Kafka as the header of the same name.
Nothing here records a span: an unsampled trace costs one parse and one header.
"""

import random
import re
from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE = "0" * 32
_NO_SPAN = "0" * 16


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One position in a trace."""

    trace_id: str
    """32 lower-case hex digits, never all zero."""
    span_id: str
    """16 lower-case hex digits, never all zero."""
    sampled: bool
    """Whether spans of this trace are recorded."""

    @staticmethod
    def parse(traceparent: str | bytes | None) -> "TraceContext | None":
        """Return the context in a `traceparent` header; None if there is none or it is malformed."""
        found = _read(traceparent)
        return None if found is None else TraceContext(*found)

    @staticmethod
    def below(traceparent: str | bytes | None) -> "TraceContext":
        """Return a new position in the trace of a `traceparent` header; the first of a new trace without a good one."""
        found = _read(traceparent)
        if found is None:
            return TraceContext.new()
        trace_id, _, sampled = found
        return TraceContext(trace_id, _hex(64), sampled)

    @staticmethod
    def new(*, sampled: bool = False) -> "TraceContext":
        """Return the first position of a new trace."""
        return TraceContext(_hex(128), _hex(64), sampled)

    def child(self) -> "TraceContext":
        """Return a new position in the same trace, for a call to another service."""
        return TraceContext(self.trace_id, _hex(64), self.sampled)

    @property
    def traceparent(self) -> str:
        """This position as the value of a `traceparent` header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def current() -> TraceContext | None:
    """Return the current context; None outside any trace."""
    return _current.get()


class use:  # noqa: N801 - reads as a verb: `with use(context): ...`
    """Context manager: `current()` is `context` inside. None leaves any trace."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: TraceContext | None) -> None:
        self._context = context
        self._token: Token[TraceContext | None] | None = None

    def __enter__(self) -> TraceContext | None:
        self._token = _current.set(self._context)
        return self._context

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._token is not None:
            _current.reset(self._token)
            self._token = None


_current: ContextVar[TraceContext | None] = ContextVar("backstay_trace", default=None)


def _read(traceparent: str | bytes | None) -> tuple[str, str, bool] | None:
    """Return trace id, span id and whether it is sampled; None for what is no `traceparent`."""
    if not traceparent:
        return None
    text = traceparent.decode("latin-1") if isinstance(traceparent, bytes) else traceparent
    found = _TRACEPARENT.fullmatch(text)
    if found is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id, span_id, bool(int(flags, 16) & 1)


def _hex(bits: int) -> str:
    # Ids need to be unlikely to collide, not hard to guess; 0 is not a legal id.
    return f"{random.getrandbits(bits) or 1:0{bits // 4}x}"
