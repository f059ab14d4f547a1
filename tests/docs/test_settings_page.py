"""The page of all settings is what the code reads."""

from tests.docs.settings_page import PAGE, page


def test_the_settings_page_is_current() -> None:
    """Nobody has to remember the page when a setting changes: this test does."""
    assert PAGE.read_text() == page(), "run: python -m tests.docs.settings_page"
