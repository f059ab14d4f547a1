"""Percentiles are right to one percent, whatever the latencies."""

import random

import pytest

from lab.load.histogram import Histogram, together


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_right_to_two_percent(seed: int) -> None:
    """Against the sorted list of all values."""
    chance = random.Random(seed)
    values = [chance.lognormvariate(-4, 1.5) for _ in range(20_000)]
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    values.sort()

    for percent in (1, 50, 90, 99, 99.9):
        exact = values[int(len(values) * percent / 100) - 1]
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.02)
    assert histogram.percentile(100) == values[-1]


def test_histograms_of_several_clients_add_up() -> None:
    """Counts and the longest."""
    one, two = Histogram(), Histogram()
    for value in (0.001, 0.002):
        one.record(value)
    two.record(3.0)
    both = together((one, two))

    assert both.count == 3
    assert both.longest == both.percentile(100) == 3.0
    assert both.percentile(50) == pytest.approx(0.002, rel=0.02)


def test_nothing_recorded_is_nothing() -> None:
    """No division by zero in an empty run."""
    assert Histogram().percentile(99) == 0.0
    assert all(point.seconds == 0 for point in Histogram().curve())


def test_the_curve_only_rises() -> None:
    """A plot of it never goes back, and ends at the longest."""
    histogram = Histogram()
    for number in range(1, 10_001):
        histogram.record(number / 1000)
    seconds = [point.seconds for point in histogram.curve()]

    assert seconds == sorted(seconds)
    assert seconds[-1] == 10.0
