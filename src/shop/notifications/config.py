"""What notifications can be told from outside."""

import re
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from backstay.errors import ConfigError
from backstay.service import Address, Seconds, ServiceSettings

_SERVER = re.compile(r"smtps?://[^/\s]+|null:")
_SENDER = re.compile(r"[!-?A-~]+@[!-?A-~]+")


@dataclass(frozen=True, kw_only=True)
class Settings(ServiceSettings):
    """Settings of notifications."""

    database_connections: Annotated[int, Meta(ge=2)] = 6
    """Connections to the database at most."""
    smtp_url: Address = Address("null:")  # noqa: RUF009 - an immutable string
    """`smtp://[user:password@]host[:port]`, `smtps://…`, or `null:`, which takes every message and forgets it."""
    mail_from: str = "shop@backstay.example"
    """The sender's address; its domain ends every Message-ID."""
    smtp_wait_open: Seconds = 5.0
    """How long the mail server is left alone once too many messages failed."""
    send_interval: Seconds = 0.25
    """Between two looks for messages that are due."""

    def __post_init__(self) -> None:
        problems = []
        if not _SERVER.fullmatch(self.smtp_url):
            problems.append(
                f"SMTP_URL={self.smtp_url!r}: must be smtp://[user:password@]host[:port], smtps://… or null:"
            )
        if not _SENDER.fullmatch(self.mail_from):
            problems.append(f"MAIL_FROM={self.mail_from!r}: must be one plain address, name@domain")
        if problems:
            raise ConfigError(problems)
