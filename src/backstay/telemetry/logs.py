"""Logs: structlog, one line an event, the trace id on every line. Nothing is configured at import."""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Literal, TextIO

from backstay.telemetry.trace import current


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let imports inside the block find no such module, unless it is there already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # the import system's own word for "there is none"
    try:
        yield
    finally:
        del sys.modules[module]


# structlog imports rich for tracebacks that are never shown here (see `_console`); with its pygments it costs a process
# 0.3 s of CPU at the start and 4 MB.
with _without("rich"):
    import structlog

Format = Literal["json", "console"]


def get_logger() -> Any:
    """Return a logger; call it with a dotted event name and key-values: `log.info("job.failed", job="prune")`."""
    return structlog.stdlib.get_logger()


def configure(service: str, format: Format = "json", level: str = "info", *, stream: TextIO | None = None) -> None:  # noqa: A002
    """Send every log line of the process, the standard library's too, to `stream` (standard output by default).

    Args:
        service: name on every line.
        format: `json` for machines, `console` for people.
        level: least level that is shown; the standard library's loggers need at least `warning`.
        stream: where the lines go.
    """
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        _Named(service),
        structlog.processors.StackInfoRenderer(),
    ]
    foreign = [*shared, structlog.stdlib.ExtraAdder()]
    formatter = structlog.stdlib.ProcessorFormatter(foreign_pre_chain=foreign, processors=_rendered(format))
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    for old in root.handlers[:]:
        if isinstance(old.formatter, structlog.stdlib.ProcessorFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    threshold = getattr(logging, level.upper())
    root.setLevel(min(threshold, logging.WARNING))
    logging.getLogger("asyncio").setLevel(max(threshold, logging.WARNING))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


class _Named:
    """Adds the service and, inside a trace, its id."""

    def __init__(self, service: str) -> None:
        self._service = service

    def __call__(self, _: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = self._service
        context = current()
        if context is not None:
            event["trace_id"] = context.trace_id
        return event


def _rendered(style: Format) -> list[Any]:
    strip = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if style == "console":
        return [strip, _console()]
    return [strip, structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_json)]


def _console() -> structlog.dev.ConsoleRenderer:
    # Plain: a rich traceback shows local variables, and those may be secrets.
    return structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=structlog.dev.plain_traceback)


def _json(event: Any, **_: Any) -> str:
    import msgspec

    return msgspec.json.encode(event, enc_hook=str).decode()
