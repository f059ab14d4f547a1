"""Prometheus' text form, and the mark of numbers that only grow.

A field of a `statistics()` record that only grows since the start of the process is a `Count`; it is shown as a counter
with the suffix `_total`. All other numbers are gauges.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

COUNTER, GAUGE, SUMMARY, HISTOGRAM = "counter", "gauge", "summary", "histogram"

Count = Annotated[int, COUNTER]
"""A number that only grows."""
Counts = Annotated[dict[str, int], COUNTER]
"""Numbers that only grow, by a label."""

_NO_LABEL = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of a family: its labels, its value, and what follows the family's name (`_sum`, `_bucket`)."""

    labels: Mapping[str, str]
    value: float
    suffix: str = ""


def family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    """Yield the lines of a family: HELP, TYPE, and a line for each sample.

    A counter's name ends with `_total`. Of two samples with the same labels only the first is written: a series that is
    there twice would spoil the whole page.
    """
    yield f"# HELP {name} {_escaped(text, quotes=False)}"
    yield f"# TYPE {name} {kind}"
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for sample in samples:
        labels = {label_name(key): str(value) for key, value in sample.labels.items()}
        series = sample.suffix, tuple(sorted(labels.items()))
        if series in seen:
            continue
        seen.add(series)
        shown = ",".join(f'{key}="{_escaped(value)}"' for key, value in labels.items())
        yield f"{name}{sample.suffix}{'{' + shown + '}' if shown else ''} {number(sample.value)}"


def number(value: float) -> str:
    """Return a number in full digits, as Prometheus reads it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def label_name(key: str) -> str:
    """Return a legal name for a label, made as Micrometer makes it: other characters become underscores."""
    name = _NO_LABEL.sub("_", str(key))
    if name.startswith("__"):
        name = f"m{name}"  # reserved by Prometheus
    return name if name[:1].isalpha() or name.startswith("_") else f"m_{name}"


def unique(name: str, taken: set[str]) -> str:
    """Return the name, or the first of `name-2`, `name-3`, … that isn't taken; it is taken from then on."""
    found, count = name, 1
    while found in taken:
        count += 1
        found = f"{name}-{count}"
    taken.add(found)
    return found


def _escaped(value: str, *, quotes: bool = True) -> str:
    text = str(value).replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


__all__ = [
    "COUNTER",
    "GAUGE",
    "HISTOGRAM",
    "SUMMARY",
    "Count",
    "Counts",
    "Sample",
    "family",
    "label_name",
    "number",
    "unique",
]
