"""Plots as SVG, written by hand: lines over an axis, readable in any browser and in a diff."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

WIDTH, HEIGHT = 760, 340
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 40, 45
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")


@dataclass(frozen=True, slots=True)
class Line:
    """A named line of (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def percentiles(title: str, lines: Sequence[Line]) -> str:
    """Latency over percentile: x is the percent, stretched towards 100; y milliseconds, logarithmic."""
    ticks = [(percent, f"{percent:g} %") for percent in (0, 50, 90, 99, 99.9, 99.99)]
    return _plot(title, lines, x=_nines, y=lambda ms: math.log10(max(ms, 0.1)), x_ticks=ticks, unit="ms", log=True)


def over_time(title: str, lines: Sequence[Line], *, unit: str) -> str:
    """Anything over seconds, from zero."""
    longest = max((x for line in lines for x, _ in line.points), default=1.0)
    step = _step(longest)
    ticks = [(n * step, f"{n * step:g} s") for n in range(int(longest / step) + 1)]
    return _plot(title, lines, x=float, y=float, x_ticks=ticks, unit=unit, log=False)


def _nines(percent: float) -> float:
    return -math.log10(max(1 - percent / 100, 1e-5))


def _plot(
    title: str,
    lines: Sequence[Line],
    *,
    x: Callable[[float], float],
    y: Callable[[float], float],
    x_ticks: Sequence[tuple[float, str]],
    unit: str,
    log: bool,
) -> str:
    xs = [x(a) for line in lines for a, _ in line.points] or [0.0, 1.0]
    ys = [b for line in lines for _, b in line.points] or [0.0, 1.0]
    left, right = min(xs), max(xs) or 1.0
    y_ticks = _log_ticks(max(min(ys), 0.1), max(ys)) if log else _ticks(max(ys))
    low, high = y(y_ticks[0]), y(y_ticks[-1])

    def across(value: float) -> float:
        return LEFT + (x(value) - left) / ((right - left) or 1) * (WIDTH - LEFT - RIGHT)

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (y(value) - low) / ((high - low) or 1) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11"><rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{html.escape(title)}</text>',
    ]
    for tick in y_ticks:
        parts.append(f'<path d="M{LEFT} {up(tick):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{_number(tick)} {unit}</text>')
    for value, label in x_ticks:
        if left - 1e-9 <= x(value) <= right + 1e-9:
            parts.append(f'<path d="M{across(value):.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>')
            place = f'x="{across(value):.1f}" y="{HEIGHT - BOTTOM + 16}"'
            parts.append(f'<text {place} text-anchor="middle">{html.escape(label)}</text>')
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        way = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line.points)
        parts.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        place = f'x="{WIDTH - RIGHT + 10}" y="{TOP + 14 * number + 10}"'
        parts.append(f'<text {place} fill="{colour}">{html.escape(line.name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(max(high, low * 1.01)))
    return [10.0**power for power in range(first, last + 1)]


def _ticks(high: float) -> list[float]:
    step = _step(high)
    return [n * step for n in range(math.ceil(high / step) + 1)]


def _step(high: float) -> float:
    """Return a round step that makes about five of them."""
    raw = max(high, 1e-9) / 5
    power = 10 ** math.floor(math.log10(raw))
    return float(next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def growth(points: Sequence[tuple[float, float]]) -> float:
    """Change a second of a line fitted to the points; 0 for fewer than two."""
    if len(points) < 2 or all(a == b for (a, _), (b, _) in pairwise(points)):
        return 0.0
    middle_x = sum(x for x, _ in points) / len(points)
    middle_y = sum(y for _, y in points) / len(points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / sum((x - middle_x) ** 2 for x, _ in points)


__all__ = ["Line", "growth", "over_time", "percentiles"]
