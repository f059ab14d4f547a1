"""Telemetry: trace context, logs and metrics. Only what is asked for is imported."""

from backstay.telemetry.trace import TraceContext, current, use

__all__ = ["TraceContext", "current", "use"]
