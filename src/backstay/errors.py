"""Base of the errors that Backstay raises on purpose.

BackstayError
├── ConfigError          a setting, flag or file is wrong; lists every problem
├── db.DatabaseError     what the database refused or could not do
├── ...                  one tree per package, drawn in its own `errors.py`
"""

import re
from collections.abc import Sequence

_USER_INFO = re.compile(r"(?<=://)([^:@/\s]*):(?:(?!://)\S)*@")
"""User and password of each URL in a text, up to the last `@`: a password may hold `/` and `@` as they are."""


class BackstayError(Exception):
    """Base of all errors that Backstay raises on purpose."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip().splitlines()[0])


class ConfigError(BackstayError):
    """The configuration is wrong.

    `problems` holds one sentence per mistake: the key, its value and what is allowed.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


def masked(text: str) -> str:
    """Return the text with the passwords of the URLs in it replaced by `***`."""
    return _USER_INFO.sub(r"\1:***@", text)


__all__ = ["BackstayError", "ConfigError", "masked"]
