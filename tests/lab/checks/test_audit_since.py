"""What `shop audit --since` understands."""

from datetime import UTC, datetime, timedelta

import pytest

from lab.checks.audit import read_since

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("", None),
        ("45s", NOW - timedelta(seconds=45)),
        ("2h", NOW - timedelta(hours=2)),
        ("1d", NOW - timedelta(days=1)),
        ("2026-01-31T11:00Z", NOW - timedelta(hours=1)),
        ("2026-01-31T11:00", NOW - timedelta(hours=1)),
        ("2026-01-31T13:00+02:00", NOW - timedelta(hours=1)),
    ],
)
def test_a_time_or_how_long_ago(text: str, since: datetime | None) -> None:
    """A duration with its unit, or a time; without a zone it is UTC."""
    assert read_since(text, NOW) == since


@pytest.mark.parametrize("text", ["yesterday", "2", "-2h", "9999999d", "999999d", "2026-13-01"])
def test_anything_else_is_refused_by_name(text: str) -> None:
    """The message shows what was given and what is allowed."""
    with pytest.raises(ValueError, match="allowed are"):
        read_since(text, NOW)
