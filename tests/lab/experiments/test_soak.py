"""Growth is seen, and what only moves isn't taken for it."""

import pytest

from backstay.dev.processes import Cost, costs
from lab.experiments.soak import Look, Soaked, grown
from lab.load.depths import Depths

MB = 1_000_000


def soaked(memory: list[float], descriptors: list[int] | None = None) -> Soaked:
    files = descriptors or [50] * len(memory)
    return Soaked(
        [
            Look(5.0 * number, {"orders": Cost(0.0, int(size * MB), files[number])}, Depths(0, 0, 0, {"inventory": 0}))
            for number, size in enumerate(memory)
        ]
    )


def test_a_leak_is_seen() -> None:
    """Memory that rises all the time, descriptors that are never closed."""
    leaking = soaked([80 + number for number in range(60)], [50 + 2 * number for number in range(60)])

    assert [problem.split()[0] for problem in grown(leaking, ["orders"])] == ["orders", "orders"]


@pytest.mark.parametrize(
    "memory",
    [
        [60, 75, 80, 84] + [85] * 56,  # warming up
        [80 + (number % 7) for number in range(60)],  # breathing
        [95] * 30 + [70] * 30,  # started again
    ],
)
def test_what_only_moves_is_no_leak(memory: list[float]) -> None:
    """Warming up, breathing, and a new life after a kill."""
    assert grown(soaked(memory), ["orders"]) == []


def test_costs_count_a_process_with_its_children() -> None:
    """This very process has CPU time, memory and descriptors."""
    import os

    cost = costs({"tests": os.getpid()})["tests"]

    assert cost.cpu > 0
    assert cost.memory > 10 * MB
    assert cost.descriptors > 3
