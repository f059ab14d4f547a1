"""Telemetry: trace context, logs and metrics. Libraries are imported only when they are used."""

from backstay.telemetry.trace import TraceContext, current, use

__all__ = ["TraceContext", "current", "use"]
