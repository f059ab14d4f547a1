"""The page of the commands is what the code reads."""

from tests.docs.commands_page import PAGE, page


def test_page_is_what_the_commands_take() -> None:
    """`python -m tests.docs.commands_page` writes it anew."""
    assert PAGE.read_text(encoding="utf-8") == page()
