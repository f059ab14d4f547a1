"""Well is when every order of two seconds was confirmed at once."""

import pytest

from lab.experiments.recovery import Answer, well_from


def orders(*statuses: int, every: float = 0.5, took: float = 0.1) -> list[Answer]:
    return [Answer(number * every, took, status) for number, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("statuses", "well"),
    [
        ((201,) * 8, 0.0),
        ((202, 202, 503, 0, *(201,) * 8), 1.6),
        ((201, 201, 202, *(201,) * 8), 1.1),
        ((201, 201, 202, 201), None),
        ((503,) * 20, None),
        ((), None),
    ],
)
def test_well_begins_after_the_last_bad_answer(statuses: tuple[int, ...], well: float | None) -> None:
    """From the end of the last answer that wasn't a confirmation, if two seconds of nothing else follow."""
    assert well_from(orders(*statuses), 0.0, len(statuses) * 0.5) == pytest.approx(well)


def test_what_came_before_the_end_of_the_fault_does_not_count() -> None:
    """Orders sent while it lasted may have failed, and were answered late."""
    answers = [Answer(0.0, 9.0, 503), *orders(*(201,) * 30)[10:]]

    assert well_from(answers, 5.0, 15.0) == 5.0
